//! `bellwirectl man`: the manual, made from the same definitions as `--help`.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::roff::{Inline, Roff, roman};

use crate::cli::Cli;
use crate::exit::{EXIT_CODES, Exit};
use crate::failure::{Failure, words};
use crate::names;
use crate::output::human;

/// What a verb's long help calls its last part.
const EXAMPLES: [&str; 2] = ["Examples:", "Example:"];

/// Print the manual, or write all its pages: one for bellwirectl and one for each verb
///
/// Without DIR, the page of bellwirectl goes to standard output, or that of the verb that --page names.
/// With DIR, which is made if it is missing, all pages are written there: bellwirectl.1,
/// bellwirectl-ls.1 and so on.
///
/// Examples:
///   bellwirectl man | man -l -
///   bellwirectl man --page doctor | man -l -
///   bellwirectl man /usr/local/share/man/man1
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Man {
    /// Where to write the pages
    #[arg(value_name = "DIR", conflicts_with = "page")]
    dir: Option<PathBuf>,
    /// The verb whose page to print: `ls`, `token-new`
    #[arg(long, value_name = "VERB")]
    page: Option<String>,
}

pub(crate) fn run(args: &Man) -> Result<Exit, Failure> {
    let pages = pages();
    let Some(dir) = &args.dir else { return print(&pages, args.page.as_deref()) };
    fs::create_dir_all(dir).map_err(|error| Failure::file(dir, &error))?;
    for (name, page) in &pages {
        let path = dir.join(format!("{name}.1"));
        fs::write(&path, page).map_err(|error| Failure::file(&path, &error))?;
    }
    words(format!("{} written to {}", human::count(pages.len() as u64, "page"), dir.display()));
    Ok(Exit::Ok)
}

fn print(pages: &[(String, Vec<u8>)], verb: Option<&str>) -> Result<Exit, Failure> {
    let wanted = verb.map_or_else(|| "bellwirectl".to_owned(), |verb| format!("bellwirectl-{verb}"));
    let Some((_, page)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let verb = verb.unwrap_or_default();
        let known: Vec<_> = pages.iter().filter_map(|(name, _)| name.strip_prefix("bellwirectl-")).collect();
        let failure = Failure::new(Exit::Usage, format!("--page {verb:?}: no such page"));
        return Err(match names::nearest(verb, &known) {
            Some(near) => failure.next(format!("did you mean {near}?")),
            None => failure.next(format!("there are {}", known.join(", "))),
        });
    };
    let mut out = io::stdout().lock();
    out.write_all(page).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Ok)
}

/// Every page with its name.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    collect(&root, &mut pages);
    pages
}

fn collect(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    pages.push((name.to_owned(), page(command)));
    command.get_subcommands().filter(|verb| !verb.is_hide_set()).for_each(|verb| collect(verb, pages));
}

fn page(command: &Command) -> Vec<u8> {
    let man = clap_mangen::Man::new(command.clone()).manual("Bellwire");
    let mut page = Vec::new();
    render(command, &man, &mut page).expect("memory takes what is written to it");
    page
}

fn render(command: &Command, man: &clap_mangen::Man, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    let (description, examples) = split(&about);
    let mut roff = Roff::default();
    roff.control("SH", ["DESCRIPTION"]);
    // The first line stands under NAME already.
    paragraphs(&mut roff, description.lines().skip(1));
    roff.to_writer(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let mut roff = Roff::default();
    // Every verb ends with one of them; those that mean something else by them say so.
    let codes = command.get_after_help().map_or_else(|| EXIT_CODES.to_owned(), ToString::to_string);
    roff.control("SH", ["EXIT STATUS"]);
    unfilled(&mut roff, codes.lines().skip(1));
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        unfilled(&mut roff, examples.lines());
    }
    if command.get_name() != "bellwirectl" {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman("bellwirectl(1)")]);
    }
    roff.to_writer(page)
}

/// What a verb does, and its examples.
fn split(about: &str) -> (&str, &str) {
    let at = EXAMPLES.into_iter().find_map(|heading| about.split_once(heading));
    at.map_or((about, ""), |(description, examples)| (description, examples.trim_start_matches('\n')))
}

/// Filled text; an empty line ends a paragraph.
fn paragraphs<'a>(roff: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    for line in lines.skip_while(|line| line.trim().is_empty()) {
        if line.trim().is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
}

/// Lines that stay as they are.
fn unfilled<'a>(roff: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    roff.control("nf", []);
    for line in lines {
        roff.text([Inline::Roman(line.trim_end().to_owned())]);
    }
    roff.control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_how_it_ends_and_every_verb_has_one() {
        let pages = pages();
        for (name, page) in &pages {
            let text = String::from_utf8(page.clone()).unwrap();
            assert!(text.contains(".SH \"EXIT STATUS\""), "{name}");
            assert!(name == "bellwirectl" || text.contains(".SH EXAMPLES"), "{name}");
            assert!(!text.contains("Example:") && !text.contains("Examples:"), "{name}: twice");
        }
        for verb in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = format!("bellwirectl-{}", verb.get_name());
            assert!(pages.iter().any(|(page, _)| *page == name), "{name}");
        }
        assert!(!pages.iter().any(|(name, _)| name.contains("bench-producer") || name.contains("help")));
    }
}
