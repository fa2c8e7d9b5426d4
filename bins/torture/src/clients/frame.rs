//! The gateway's frames, as far as they matter here.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    pub(super) op: &'a str,
    #[serde(default)]
    pub(super) stream: Option<&'a str>,
    #[serde(default)]
    pub(super) epoch: &'a str,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) head: u64,
    #[serde(default)]
    pub(super) why: &'a str,
    #[serde(default)]
    pub(super) conflated: u64,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) items: Vec<Item<'a>>,
    #[serde(borrow, default)]
    pub(super) streams: Option<Streams<'a>>,
    #[serde(default)]
    pub(super) code: u64,
    #[serde(borrow, default)]
    pub(super) reason: Cow<'a, str>,
    #[serde(default)]
    pub(super) reconnect_after_ms: u64,
}

#[derive(Deserialize)]
pub(super) struct Item<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
}

#[derive(Deserialize)]
pub(super) struct Streams<'a> {
    #[serde(borrow)]
    pub(super) user: State<'a>,
    #[serde(borrow)]
    pub(super) all: State<'a>,
}

#[derive(Deserialize)]
pub(super) struct State<'a> {
    pub(super) epoch: &'a str,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) head: u64,
    #[serde(default)]
    pub(super) oldest: u64,
    #[serde(default)]
    pub(super) recovered: Option<bool>,
}
