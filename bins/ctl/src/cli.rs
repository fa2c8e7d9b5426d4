//! The command line: what stands before and around the verbs.

use std::path::PathBuf;

use bellwire::inspect::Place;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser};

use crate::copies::Copies;
use crate::exit::EXIT_CODES;
use crate::verbs::Verb;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Look at a Bellwire bus, publish to it, and listen to its gateway
///
/// Whatever only looks, maps shared memory read-only: it can disturb nobody. Data goes to standard
/// output, words to standard error. Start with `bellwirectl ls`; `bellwirectl doctor` says what is wrong
/// and what to do about it.
///
/// With --json, every object has the number `schema` first: it is 1, and grows when a field is removed
/// or means something else; fields may be added without that. Two outputs have none, because they are
/// the gateway's protocol and have its version: what `tail --json` and `listen --json` show of
/// notifications. Colours are for terminals only, and not where NO_COLOR is set.
#[derive(Parser, Debug)]
#[command(name = "bellwirectl", version, styles = STYLES, after_help = EXIT_CODES, verbatim_doc_comment)]
#[command(infer_long_args = true, disable_help_subcommand = false, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Args, Debug)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The bus [default: main; `ls` shows all]
    #[arg(long, global = true, env = "BELLWIRE_BUS", value_name = "NAME")]
    pub(crate) bus: Option<String>,
    /// The group whose segments are trusted, as producers and gateway were told [default: only your own]
    #[arg(long, global = true, env = "BELLWIRE_GROUP", value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// One JSON object a line instead of text; `schema` in it is the version of its fields
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tables without their headings
    #[arg(long, global = true)]
    pub(crate) no_header: bool,
    /// Look at a copy: a file that `bellwirectl snapshot` made, or a directory with segments' files
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) copy: Option<PathBuf>,
    /// What that is.
    #[arg(skip)]
    pub(crate) copies: Option<Copies>,
}

impl Global {
    pub(crate) fn bus(&self) -> &str {
        let of_copies = || self.copies.as_ref().and_then(Copies::bus);
        self.bus.as_deref().or_else(of_copies).unwrap_or(bellwire::DEFAULT_BUS)
    }

    /// Where to look, and whose segments are believed there.
    pub(crate) fn place(&self) -> Place<'_> {
        match &self.copies {
            Some(copies) => copies.place(),
            None => self.group.as_deref().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_line_of_help_is_wider_than_a_terminal() {
        let mut cli = Cli::command();
        cli.build();
        fn check(command: &mut clap::Command) {
            for line in command.render_long_help().to_string().lines() {
                let is_example = line.trim_start().starts_with("bellwirectl ");
                assert!(line.chars().count() <= if is_example { 130 } else { 112 }, "{line}");
            }
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut cli);
    }

    #[test]
    fn every_verb_has_an_example_in_its_help() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for verb in cli.get_subcommands() {
            let leaves: Vec<_> =
                if verb.has_subcommands() { verb.get_subcommands().collect() } else { vec![verb] };
            for leaf in leaves {
                let help = leaf.get_long_about().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{}", leaf.get_name());
            }
        }
    }
}
