//! The gateway: reads every lane of a bus, gives each user one numbered stream in a journal, and serves those streams
//! to WebSocket sessions.

#![deny(unsafe_code)]

pub mod admin;
pub mod auth;
pub mod broker;
pub mod clock;
pub mod config;
pub mod control;
pub mod counts;
pub mod doors;
pub mod gateway;
pub mod log;
pub mod presence;
pub mod protocol;
pub mod reload;
pub mod service;
pub mod shard;
pub mod socket;
pub mod version;
