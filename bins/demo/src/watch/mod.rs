//! What the demo itself does: starts the gateway and the producers, connects a client for each user, serves the page,
//! shows what happens, and judges it. All of it on one thread: the machine has other things to do.

mod client;
mod instance;
mod latency;
mod oracle;
mod page_server;
pub(crate) mod processes;
pub(crate) mod run;
mod tally;
mod terminal;
mod token;
