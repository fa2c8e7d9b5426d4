//! The gateway: reads every lane of a bus, gives each user one numbered stream in a journal, and serves those streams
//! to WebSocket sessions.

pub mod broker;
pub mod journal;
