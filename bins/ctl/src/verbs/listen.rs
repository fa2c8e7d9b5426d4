//! `bellwirectl listen`: a WebSocket client of a gateway that checks the protocol's one rule on every frame.

mod backoff;
mod codes;
mod frame;
mod link;
mod lost;
mod position;
mod printer;
mod resume_file;
mod session;
mod summary;
mod token_source;

use std::path::PathBuf;
use std::time::Duration;

use bellwire::Channel;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::backoff::Backoff;
pub(super) use self::link::Target;
use self::lost::Lost;
use self::position::Positions;
use self::printer::{Printer, Show};
use self::resume_file::ResumeFile;
use self::session::{Done, Listener, Wish};
use self::token_source::TokenSource;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::jwt::KeyArgs;
use crate::names;
use crate::output::human;

/// The same gap so often in a row is a fault that resuming does not heal.
const SAME_GAP_MAX: u32 = 3;

/// Listen to a gateway as a client: one user's notifications
///
/// Checks every frame: `prev` must be the position where we stand (else there is a gap), no id may
/// come twice, nothing of another user. Prints one line a notification; --data prints the notification
/// objects, --json whole frames as they came, --summary only counts and latencies at the end.
/// Latencies are measured from the notification's timestamp to its arrival here; replayed ones and
/// those whose timestamp makes no sense are counted apart.
///
/// Ends with --count, --seconds or Ctrl-C (exit 0), or when the connection is lost (exit 1; with
/// --reconnect it comes back by itself and resumes). Exit 1 also if anything was missing or double.
///
/// Examples:
///   bellwirectl listen ws://127.0.0.1:8640/ --token-file token.txt
///   bellwirectl listen ws://127.0.0.1:8640/ --user user_01 --key "$KEY" --channels trade,risk
///   bellwirectl listen ws://gw:8640/ --token-file t.txt --reconnect --resume-file user_01.pos --data >> user_01.jsonl
///   bellwirectl listen ws://gw:8640/ --token-file t.txt --summary --seconds 60
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Listen {
    /// The gateway, for example ws://127.0.0.1:8640/
    #[arg(value_name = "URL")]
    url: String,

    /// The token. Others can see it in the process list: prefer --token-file or the environment
    #[arg(long, env = "BELLWIRE_TOKEN", hide_env_values = true, value_name = "TOKEN", help_heading = "Who")]
    token: Option<String>,
    // No conflicts: a token may linger in the environment, a file or a user was asked for.
    /// A file with the token, read again for every connection; `-` is standard input
    #[arg(long, value_name = "FILE", help_heading = "Who")]
    token_file: Option<PathBuf>,
    /// Sign a token for this user ourselves, with --key or --key-file (`bellwire-gateway --dev`
    /// prints its key)
    #[arg(
        long,
        value_name = "USER",
        conflicts_with = "token_file",
        help_heading = "Who",
        verbatim_doc_comment
    )]
    user: Option<String>,
    #[command(flatten, next_help_heading = "Who")]
    key: KeyArgs,
    /// Send the token in an auth frame instead of the Authorization header
    #[arg(long, help_heading = "Who")]
    auth_frame: bool,

    /// Channels to subscribe to: trade, account, position, risk, system [default: all the token permits]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = names::channel, help_heading = "What")]
    channels: Vec<Channel>,
    /// First show the present state: the last account update and the last update of each position
    #[arg(long, help_heading = "What")]
    snapshot: bool,
    /// Resume after these positions, for example user=e9c1:41,all=b002:4
    #[arg(long, value_name = "POSITIONS", help_heading = "What")]
    resume: Option<Positions>,
    /// Remember the position in this file, and resume from it if it is there. After a kill some
    /// notifications may be printed twice, none is skipped
    #[arg(long, value_name = "FILE", conflicts_with = "resume", help_heading = "What", verbatim_doc_comment)]
    resume_file: Option<PathBuf>,

    /// Come back after a lost connection, a gap or a gateway that is not there yet, and resume
    #[arg(long, help_heading = "How long")]
    reconnect: bool,
    /// End after so many notifications (exit 1 if they do not come)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "How long")]
    count: Option<u64>,
    /// End after this time: 10, 500ms, 5m
    #[arg(long, value_name = "TIME", value_parser = names::duration, help_heading = "How long")]
    seconds: Option<Duration>,

    /// Print only the notification objects, one a line, as they came
    #[arg(long, conflicts_with = "summary", help_heading = "Output")]
    data: bool,
    /// Print only a summary at the end: counts by type and class, latencies, gaps, duplicates, reconnects
    #[arg(long, help_heading = "Output")]
    summary: bool,
}

/// How a run ended.
enum End {
    /// As many as were asked for.
    Count,
    Time,
    Signal,
    Lost(Lost),
}

pub(crate) fn run(global: &Global, args: &Listen) -> Result<Exit, Failure> {
    let target = Target::parse(&args.url)?;
    let tokens = args.tokens()?;
    let resume_file = args.resume_file.as_deref().map(ResumeFile::load).transpose()?;
    let positions = match (&args.resume, &resume_file) {
        (Some(positions), _) => positions.clone(),
        (None, Some(file)) => file.positions().clone(),
        (None, None) => Positions::default(),
    };
    let show = match (args.summary, args.data, global.json) {
        (true, ..) => Show::Summary,
        (_, true, _) => Show::Data,
        (.., true) => Show::Frames,
        _ => Show::Text,
    };
    let wish = Wish {
        target,
        auth_frame: args.auth_frame,
        channels: args.channels.clone(),
        snapshot: args.snapshot,
        count: args.count,
    };
    let mut listener = Listener::new(wish, tokens, positions, resume_file, Printer::new(global, show));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Wrong, format!("no event loop: {error}")))?;
    let started = Instant::now();
    let end = runtime.block_on(until_the_end(&mut listener, args))?;
    runtime.shutdown_background();

    listener.settle(true)?;
    if args.summary {
        let out = &mut listener.printer.out;
        if global.json {
            listener.summary.print_json(out, started.elapsed())?;
        } else {
            listener.summary.print(out, started.elapsed())?;
        }
    }
    listener.printer.out.flush()?;
    verdict(args, &listener, end)
}

/// The exit code, and why it is not 0.
fn verdict(args: &Listen, listener: &Listener, end: End) -> Result<Exit, Failure> {
    if !listener.positions.is_empty() {
        words(format_args!("ended at {}", listener.positions));
    }
    let faults = listener.summary.faults(args.reconnect);
    if !faults.is_empty() {
        words(format_args!("not everything was right: {}", faults.join(", ")));
    }
    let came = listener.summary.notifications;
    match end {
        End::Lost(lost) => Err(lost.into_failure()),
        End::Time if args.count.is_some_and(|count| came < count) => {
            let count = args.count.unwrap_or_default();
            Err(Failure::new(Exit::Wrong, format!("{came} of {count} notifications came in time")))
        }
        End::Time if !listener.subscribed => {
            Err(Failure::new(Exit::Wrong, "time is up and we are not connected"))
        }
        End::Count | End::Time | End::Signal => Ok(if faults.is_empty() { Exit::Ok } else { Exit::Wrong }),
    }
}

/// Listens until the first reason to end, then closes the connection in order.
async fn until_the_end(listener: &mut Listener, args: &Listen) -> Result<End, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let time = async {
        match args.seconds {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        end = through_reconnects(listener, args.reconnect) => end,
        () = time => End::Time,
        _ = interrupt.recv() => End::Signal,
        _ = terminate.recv() => End::Signal,
    };
    if let Some(link) = listener.link.take() {
        link.close().await;
    }
    Ok(end)
}

/// One connection after the other, if that was asked for.
async fn through_reconnects(listener: &mut Listener, reconnect: bool) -> End {
    let mut backoff = Backoff::default();
    let mut last_words = String::new();
    let mut same_gap = (Positions::default(), 0);
    loop {
        let gaps = listener.summary.gaps;
        let lost = match listener.listen().await {
            Ok(Done::Count) => return End::Count,
            Err(lost) => lost,
        };
        if let Some(link) = listener.link.take() {
            link.close().await;
        }
        if !reconnect || !lost.retry {
            return End::Lost(lost);
        }
        if listener.subscribed {
            backoff.reset();
            last_words.clear();
        }
        if listener.summary.gaps > gaps {
            let again = if same_gap.0 == listener.positions { same_gap.1 + 1 } else { 1 };
            same_gap = (listener.positions.clone(), again);
            if again >= SAME_GAP_MAX {
                words(format_args!("the same gap {again} times in a row: resuming does not heal it"));
                return End::Lost(lost);
            }
        }
        let wait = backoff.next(lost.after, fastrand::f64());
        // A gateway that is away for an hour is worth one line, not hundreds.
        if lost.why() != last_words {
            words(format_args!("{}; trying again in {}", lost.why(), human::duration(wait)));
            last_words = lost.why();
        }
        Listener::pause(wait).await;
    }
}

impl Listen {
    fn tokens(&self) -> Result<TokenSource, Failure> {
        match (&self.user, &self.token_file, &self.token) {
            (Some(user), ..) => {
                let (user, channels) = (user.clone(), Vec::new());
                Ok(TokenSource::Signed { user, key: self.key.read()?, channels })
            }
            (None, Some(path), _) => Ok(TokenSource::File { path: path.clone(), last: String::new() }),
            (None, None, Some(token)) => Ok(TokenSource::Given(token.trim().to_owned())),
            (None, None, None) if self.key.is_given() => {
                Err(Failure::new(Exit::Usage, "whom is the token for?").next("name the user: --user USER"))
            }
            (None, None, None) => Err(Failure::new(Exit::Usage, "no token")
                .next("give --token-file FILE, --token TOKEN, or --user USER with --key KEY")),
        }
    }
}
