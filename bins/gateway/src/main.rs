//! The gateway's process: arguments, configuration, logs, signals.
//!
//! Standard output carries lines for programs (`listening ws://…`), standard error words for people.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bellwire_gateway::config::{Config, ConfigError, Development};
use bellwire_gateway::control::Stop;
use bellwire_gateway::doors::{Doors, Keeper};
use bellwire_gateway::reload::{Load, Reloader};
use bellwire_gateway::version::{BUILD, VERSION};
use bellwire_gateway::{gateway, log, service};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Reads the lanes of a bus, numbers each user's notifications, and pushes them to WebSocket sessions.
///
/// Every key of the configuration can be overridden by the environment: BELLWIRE_<SECTION>_<KEY>, for example
/// BELLWIRE_LISTEN_ADDRESS=127.0.0.1:0.
///
/// Exit codes: 0 ended in order, 1 failed while running, 2 wrong arguments or configuration.
#[derive(Parser)]
#[command(name = "bellwire-gateway", version, verbatim_doc_comment)]
struct Arguments {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what is wrong with the configuration, and end
    #[arg(long)]
    check: bool,
    /// Print every key with its value and where that is from, one JSON object a line, and end
    #[arg(long, conflicts_with = "check")]
    show: bool,
    /// For a developer's machine: loopback, a free port, a journal that goes away, a key made and printed
    #[arg(long, conflicts_with_all = ["check", "show"])]
    dev: bool,
}

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.show {
        return show(arguments.config.as_deref());
    }
    let mut config = match load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return complain(&error, MISCONFIGURED),
    };
    let development = match arguments.dev.then(|| Development::prepare(&mut config)).transpose() {
        Ok(development) => development,
        Err(error) => return complain(&error, FAILED),
    };
    let problems = config.problems();
    if !problems.is_empty() {
        for problem in &problems {
            eprintln!("bellwire-gateway: {problem}");
        }
        return ExitCode::from(MISCONFIGURED);
    }
    if arguments.check {
        println!("the configuration is sound");
        return ExitCode::SUCCESS;
    }
    let level = log::start(&config.log);
    tracing::info!(version = VERSION, build = BUILD, pid = std::process::id(), "bellwire-gateway");
    // A segment that somebody truncates, and a disk that fails, are to be the end of that segment and not ours.
    if let Err(error) = bellwire::guard_mappings() {
        return complain(&format!("cannot handle SIGBUS: {error}"), FAILED);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start an event loop: {error}"), FAILED),
    };
    match runtime.block_on(serve(arguments, &config, development.as_ref(), level)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, FAILED),
    }
}

fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    Config::load(file, environment())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn show(file: Option<&Path>) -> ExitCode {
    use std::io::Write as _;
    let settings = match Config::settings(file, environment()) {
        Ok(settings) => settings,
        Err(error) => return complain(&error, MISCONFIGURED),
    };
    let mut lines = String::new();
    for setting in &settings {
        match serde_json::to_string(setting) {
            Ok(line) => lines.extend([&*line, "\n"]),
            Err(error) => return complain(&error, FAILED),
        }
    }
    // Nobody may be reading any more (`| head`).
    let _ = std::io::stdout().lock().write_all(lines.as_bytes());
    ExitCode::SUCCESS
}

async fn serve(
    arguments: Arguments,
    config: &Config,
    development: Option<&Development>,
    level: log::Level,
) -> Result<(), Box<dyn std::error::Error>> {
    // Before anything else starts: a signal that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
        }
        Stop::default()
    };
    let mut hangup = signal(SignalKind::hangup())?;
    let doors = Doors::open(config)?;
    let keeper = Keeper::start(Arc::clone(&doors), config)?;
    // What `--dev` made stands in no file: there, only the files that are named are read again.
    let made = arguments.dev.then(|| config.clone());
    let load: Load = Box::new(move || made.clone().map_or_else(|| load(arguments.config.as_deref()), Ok));
    let reloader = Arc::new(Reloader::new(config, load, keeper, level));
    let reloads = async {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP");
            let reloader = Arc::clone(&reloader);
            // It reads files; how it went, it says in the log.
            let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
        }
        std::future::pending::<()>().await;
    };
    let listener = match service::inherited_listener()? {
        Some(listener) => {
            if listener.local_addr()? != config.listen.address {
                tracing::info!(configured = %config.listen.address,
                    "listening where the service manager does, not at listen.address");
            }
            listener
        }
        None => gateway::listen(config.listen.address)?,
    };
    let address = listener.local_addr()?;
    let running =
        gateway::run(&reloader, &doors, listener, shutdown, || announce(address, config, development));
    tokio::select! {
        ended = running => ended?,
        () = reloads => {}
    }
    tracing::info!("ended in order");
    Ok(())
}

/// Tells programs and people where the gateway is.
fn announce(address: std::net::SocketAddr, config: &Config, development: Option<&Development>) {
    use std::io::Write as _;
    let scheme = if config.listen.tls_cert.is_some() { "wss" } else { "ws" };
    let mut lines = String::new();
    if let Some(development) = development {
        let key = development.key();
        lines.push_str(&format!("token-key {key}\n"));
        let bus = &config.bus.name;
        eprintln!(
            "A gateway for development, on bus {bus:?}. In other terminals:\n\
             \n  TOKEN=$(bellwirectl token new --sub user_01 --key {key})\
             \n  bellwirectl listen {scheme}://{address} --token \"$TOKEN\"\
             \n  bellwirectl publish --bus {bus} --help\n"
        );
    }
    lines.push_str(&format!("listening {scheme}://{address}\n"));
    // Nobody may be reading any more; the gateway serves all the same.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    tracing::info!(%address, shards = config.shard_count(), bus = config.bus.name, "listening");
    service::ready(&format!("serving {scheme}://{address}"));
}

fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("bellwire-gateway: {error}");
    ExitCode::from(code)
}
