//! The payloads, nineteen for clients and three for engines: one table that everything else is generated from.
//!
//! A row gives the number on the wire, the names, the default priority, the channel, and the fields in the order in
//! which clients see them. Every payload ends with `timestamp`, nanoseconds since the Unix epoch: when it happened.
//! Money is in account currency, volumes in lots.
//!
//! | kind | Rust | archived as | JSON |
//! | --- | --- | --- | --- |
//! | `text` | `&str` | part of the packed texts | string |
//! | `number` | `f64`, finite | 8 bytes | number |
//! | `time` | `i64`, ns since the Unix epoch | 8 bytes | number |
//! | `code` | `u32` | 4 bytes | number |
//! | `word(W)` | enum [`W`](super::words) | 1 byte | string |
//! | `account` | [`AccountType`] | 1 byte | number |
//!
//! From each row come: the borrowed struct that a producer fills (`TradeExecuted`), the form in which rkyv archives it
//! (private), and the archive that readers see in place (`ArchivedTradeExecuted`, with one accessor a field).

use super::words::*;
use super::{Channel, Priority};
use crate::codec::texts::{self, Joined};
use crate::codec::{EncodeError, form};

/// Receives the fields of a payload, in table order. See [`PayloadView::visit`].
pub trait FieldVisitor {
    /// A string.
    fn text(&mut self, name: &'static str, value: &str);
    /// A finite number.
    fn number(&mut self, name: &'static str, value: f64);
    /// Nanoseconds since the Unix epoch.
    fn time(&mut self, name: &'static str, value: i64);
    /// A small number that is a code.
    fn code(&mut self, name: &'static str, value: u32);
    /// One of a fixed set of words.
    fn word(&mut self, name: &'static str, value: &'static str);
}

/// Gives the fields of a payload by name, in table order. See [`Payload::build`].
pub trait FieldSource<'a> {
    /// Why a field cannot be given.
    type Error;
    /// A string.
    fn text(&mut self, name: &'static str) -> Result<&'a str, Self::Error>;
    /// A number; whether it is finite is checked when it is published.
    fn number(&mut self, name: &'static str) -> Result<f64, Self::Error>;
    /// Nanoseconds since the Unix epoch.
    fn time(&mut self, name: &'static str) -> Result<i64, Self::Error>;
    /// A small number that is a code.
    fn code(&mut self, name: &'static str) -> Result<u32, Self::Error>;
    /// One of a fixed set of words.
    fn word<W: Word>(&mut self, name: &'static str) -> Result<W, Self::Error>;
}

macro_rules! rust_type {
    (text) => { &'a str };
    (number) => { f64 };
    (time) => { i64 };
    (code) => { u32 };
    (account) => { AccountType };
    (word($word:ident)) => { $word };
}

macro_rules! visit {
    ($visitor:ident, $view:ident, $field:ident, text) => {
        $visitor.text(stringify!($field), $view.$field())
    };
    ($visitor:ident, $view:ident, $field:ident, number) => {
        $visitor.number(stringify!($field), $view.$field())
    };
    ($visitor:ident, $view:ident, $field:ident, time) => {
        $visitor.time(stringify!($field), $view.$field())
    };
    ($visitor:ident, $view:ident, $field:ident, code) => {
        $visitor.code(stringify!($field), $view.$field())
    };
    ($visitor:ident, $view:ident, $field:ident, account) => {
        $visitor.code(stringify!($field), $view.$field() as u32)
    };
    ($visitor:ident, $view:ident, $field:ident, word($word:ident)) => {
        $visitor.word(stringify!($field), $view.$field().as_str())
    };
}

macro_rules! take {
    ($source:ident, $field:ident, text) => {
        $source.text(stringify!($field))?
    };
    ($source:ident, $field:ident, number) => {
        $source.number(stringify!($field))?
    };
    ($source:ident, $field:ident, time) => {
        $source.time(stringify!($field))?
    };
    ($source:ident, $field:ident, code) => {
        $source.code(stringify!($field))?
    };
    ($source:ident, $field:ident, account) => {
        $source.word::<AccountType>(stringify!($field))?
    };
    ($source:ident, $field:ident, word($word:ident)) => {
        $source.word::<$word>(stringify!($field))?
    };
}

/// Checks one field before it is archived; only numbers can be wrong.
macro_rules! check {
    ($payload:ident, $field:ident, number) => {
        if !$payload.$field.is_finite() {
            return Err(EncodeError::NotFinite { field: stringify!($field), value: $payload.$field });
        }
    };
    ($payload:ident, $field:ident, $($other:tt)*) => {};
}

/// Checks one archived field; only numbers can be wrong, the rest is rkyv's to check.
macro_rules! sound {
    ($archived:ident, $field:ident, number) => {
        $archived.$field.to_native().is_finite()
    };
    ($archived:ident, $field:ident, $($other:tt)*) => {
        true
    };
}

/// Sorts a row's fields by size, so that the root has no holes, and the texts out of it; then defines the archive.
macro_rules! archive {
    (@sort $names:tt $wide:tt $codes:tt $words:tt $texts:tt) => {
        archive!(@define $names $wide $codes $words $texts);
    };
    (@sort $names:tt $wide:tt $codes:tt $words:tt [$($text:ident)*] $field:ident text; $($rest:tt)*) => {
        archive!(@sort $names $wide $codes $words [$($text)* $field] $($rest)*);
    };
    (@sort $names:tt [$($wide:tt)*] $codes:tt $words:tt $texts:tt $field:ident number; $($rest:tt)*) => {
        archive!(@sort $names [$($wide)* ($field f64)] $codes $words $texts $($rest)*);
    };
    (@sort $names:tt [$($wide:tt)*] $codes:tt $words:tt $texts:tt $field:ident time; $($rest:tt)*) => {
        archive!(@sort $names [$($wide)* ($field i64)] $codes $words $texts $($rest)*);
    };
    (@sort $names:tt $wide:tt [$($codes:tt)*] $words:tt $texts:tt $field:ident code; $($rest:tt)*) => {
        archive!(@sort $names $wide [$($codes)* ($field u32)] $words $texts $($rest)*);
    };
    (@sort $names:tt $wide:tt $codes:tt $words:tt $texts:tt $field:ident account; $($rest:tt)*) => {
        archive!(@sort $names $wide $codes $words $texts $field word(AccountType); $($rest)*);
    };
    (@sort $names:tt $wide:tt $codes:tt [$($words:tt)*] $texts:tt $field:ident word($word:ident); $($rest:tt)*) => {
        archive!(@sort $names $wide $codes [$($words)* ($field $word)] $texts $($rest)*);
    };
    (@define [$name:ident $form:ident $archived:ident] [$(($wide:ident $wide_type:ty))*]
        [$(($code:ident $code_type:ty))*] [$(($word:ident $word_type:ident))*] [$($text:ident)*]) => {
        /// The payload with its envelope's texts, in the shape in which rkyv archives it.
        #[derive(rkyv::Archive, rkyv::Serialize)]
        #[rkyv(as = $archived, serialize_bounds(__S: rkyv::ser::Writer))]
        struct $form<'a> {
            $($wide: $wide_type,)*
            $($code: $code_type,)*
            #[rkyv(with = Joined, omit_bounds)]
            texts: [&'a str; { texts::ENVELOPE + [$(stringify!($text)),*].len() }],
            ends: [u16; { texts::ENVELOPE + [$(stringify!($text)),*].len() }],
            $($word: $word_type,)*
        }

        #[doc = concat!("A [`", stringify!($name), "`] in place, as it stands in a record or a journal.")]
        #[derive(rkyv::Portable, rkyv::bytecheck::CheckBytes)]
        #[bytecheck(crate = rkyv::bytecheck)]
        #[repr(C)]
        pub struct $archived {
            $($wide: rkyv::Archived<$wide_type>,)*
            $($code: rkyv::Archived<$code_type>,)*
            texts: rkyv::boxed::ArchivedBox<str>,
            ends: [rkyv::Archived<u16>; { texts::ENVELOPE + [$(stringify!($text)),*].len() }],
            $($word: rkyv::Archived<$word_type>,)*
        }

        const _: () = {
            /// The place of each text in the packed string.
            #[allow(non_camel_case_types, dead_code, clippy::upper_case_acronyms)]
            enum Text { envelope_user_id, envelope_source, $($text),* }

            impl<'a> $name<'a> {
                #[inline]
                fn texts(&self, user_id: &'a str, source: &'a str)
                -> [&'a str; { texts::ENVELOPE + [$(stringify!($text)),*].len() }] {
                    [user_id, source, $(self.$text),*]
                }

                #[inline]
                fn form(&self, user_id: &'a str, source: &'a str) -> $form<'a> {
                    let texts = self.texts(user_id, source);
                    $form {
                        $($wide: self.$wide,)*
                        $($code: self.$code,)*
                        ends: texts::ends(&texts),
                        texts,
                        $($word: self.$word,)*
                    }
                }
            }

            impl $archived {
                /// Whom the notification is for; `*` is everybody.
                #[inline]
                pub(crate) fn envelope_user_id(&self) -> &str {
                    texts::get(&self.ends, &self.texts, Text::envelope_user_id as usize)
                }

                /// Which system says so.
                #[inline]
                pub(crate) fn envelope_source(&self) -> &str {
                    texts::get(&self.ends, &self.texts, Text::envelope_source as usize)
                }

                $(
                    #[doc = concat!("`", stringify!($wide), "` of the payload.")]
                    #[inline]
                    pub fn $wide(&self) -> $wide_type {
                        self.$wide.to_native()
                    }
                )*

                $(
                    #[doc = concat!("`", stringify!($code), "` of the payload.")]
                    #[inline]
                    pub fn $code(&self) -> $code_type {
                        self.$code.to_native()
                    }
                )*

                $(
                    #[doc = concat!("`", stringify!($word), "` of the payload.")]
                    #[inline]
                    pub fn $word(&self) -> $word_type {
                        $word_type::from(&self.$word)
                    }
                )*

                $(
                    #[doc = concat!("`", stringify!($text), "` of the payload.")]
                    #[inline]
                    pub fn $text(&self) -> &str {
                        texts::get(&self.ends, &self.texts, Text::$text as usize)
                    }
                )*
            }
        };
    };
}

macro_rules! payloads {
    ($(
        $(#[$doc:meta])*
        $number:literal $name:ident $form:ident $archived:ident $json:literal $priority:ident $channel:ident {
            $( $field:ident: $kind:ident $(($word:ident))? ),* $(,)?
        }
    )+) => {
        /// What kind of event a notification tells of. The number is the type's code in shared memory.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum MessageType { $( $(#[$doc])* $name = $number ),+ }

        impl MessageType {
            /// Every type, by code.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The name in JSON, snake_case.
            #[inline]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $json),+ }
            }

            /// The type of that name; `None` if there is none.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($json => Some(Self::$name),)+ _ => None }
            }

            /// The type with that code; `None` if there is none.
            #[inline]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The priority it has unless the caller says otherwise.
            #[inline]
            pub const fn default_priority(self) -> Priority {
                match self { $(Self::$name => Priority::$priority),+ }
            }

            /// The channel it goes out on.
            #[inline]
            pub const fn channel(self) -> Channel {
                match self { $(Self::$name => Channel::$channel),+ }
            }

            /// The names of the payload's fields, in the order in which clients see them.
            pub const fn field_names(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$(stringify!($field),)* "timestamp"]),+ }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq)]
            pub struct $name<'a> {
                $(
                    #[doc = concat!("`", stringify!($field), "` of the payload: a ", stringify!($kind), ".")]
                    pub $field: rust_type!($kind $(($word))?),
                )*
                /// When it happened, in nanoseconds since the Unix epoch.
                pub timestamp: i64,
            }

            impl<'a> $name<'a> {
                fn check(&self) -> Result<(), EncodeError> {
                    $(check!(self, $field, $kind $(($word))?);)*
                    Ok(())
                }
            }

            impl<'a> From<$name<'a>> for Payload<'a> {
                #[inline]
                fn from(payload: $name<'a>) -> Self {
                    Self::$name(payload)
                }
            }

            archive!(@sort [$name $form $archived] [] [] [] [] $($field $kind $(($word))?;)* timestamp time;);

            impl $archived {
                /// Hands over every field, in table order.
                fn visit(&self, visitor: &mut impl FieldVisitor) {
                    $(visit!(visitor, self, $field, $kind $(($word))?);)*
                    visitor.time("timestamp", self.timestamp());
                }

                /// What rkyv cannot know: end marks in order and between characters, numbers finite, a user id.
                fn is_sound(&self) -> bool {
                    texts::are_sound(&self.ends, &self.texts) $(&& sound!(self, $field, $kind $(($word))?))*
                }
            }
        )+

        /// What happened, borrowed from the caller.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Payload<'a> { $( $(#[$doc])* $name($name<'a>) ),+ }

        impl<'a> Payload<'a> {
            /// The type that this payload makes the notification have.
            #[inline]
            pub const fn message_type(&self) -> MessageType {
                match self { $(Self::$name(_) => MessageType::$name),+ }
            }

            /// Builds the payload of that type from named fields, for example those of a JSON object.
            ///
            /// # Errors
            /// The first error of the source, for example a field that is missing.
            pub fn build<S: FieldSource<'a>>(message_type: MessageType, source: &mut S) -> Result<Self, S::Error> {
                Ok(match message_type {
                    $(MessageType::$name => Self::$name($name {
                        $($field: take!(source, $field, $kind $(($word))?),)*
                        timestamp: source.time("timestamp")?,
                    })),+
                })
            }

            /// Refuses numbers that are not finite.
            #[inline]
            pub(crate) fn check(&self) -> Result<(), EncodeError> {
                match self { $(Self::$name(payload) => payload.check()),+ }
            }

            /// Exact length of the archive, in bytes.
            #[inline]
            pub(crate) fn archive_len(&self, user_id: &str, source: &str) -> Result<usize, EncodeError> {
                match self {
                    $(Self::$name(payload) => form::archive_len::<$archived>(&payload.texts(user_id, source))),+
                }
            }

            /// Writes the archive to `out`, which is [`Self::archive_len`] bytes long and aligned to 8.
            #[inline]
            pub(crate) fn archive(&self, user_id: &str, source: &str, out: &mut [u8]) -> Result<(), EncodeError> {
                match self { $(Self::$name(payload) => form::write(&payload.form(user_id, source), out)),+ }
            }
        }

        /// What happened, as it stands in an archive: read in place, nothing copied.
        #[derive(Clone, Copy)]
        pub enum PayloadView<'a> { $( $(#[$doc])* $name(&'a $archived) ),+ }

        impl<'a> PayloadView<'a> {
            /// Checks that `archive` is a sound archive of that type and gives access to it in place.
            #[inline]
            pub(crate) fn access(message_type: MessageType, archive: &'a [u8]) -> Option<Self> {
                match message_type {
                    $(MessageType::$name => {
                        form::access::<$archived>(archive).filter(|payload| payload.is_sound()).map(Self::$name)
                    })+
                }
            }

            /// The type.
            #[inline]
            pub const fn message_type(&self) -> MessageType {
                match self { $(Self::$name(_) => MessageType::$name),+ }
            }

            /// Hands every field to the visitor, in the order in which clients see them.
            #[inline]
            pub fn visit(&self, visitor: &mut impl FieldVisitor) {
                match self { $(Self::$name(payload) => payload.visit(visitor)),+ }
            }

            /// Whom the notification is for.
            #[inline]
            pub(crate) fn envelope_user_id(&self) -> &'a str {
                match self { $(Self::$name(payload) => payload.envelope_user_id()),+ }
            }

            /// Which system says so.
            #[inline]
            pub(crate) fn envelope_source(&self) -> &'a str {
                match self { $(Self::$name(payload) => payload.envelope_source()),+ }
            }
        }

        /// A hash of the schema and of how this build lays it out: part of the ABI fingerprint of a lane.
        pub(crate) const SCHEMA_FINGERPRINT: u64 = {
            let mut hash = form::FINGERPRINT_SEED;
            $(
                hash = form::mix_text(hash, stringify!($number $name $({ $field $kind $(($word))? })*));
                hash = form::mix(hash, size_of::<$archived>() as u64);
                hash = form::mix(hash, align_of::<$archived>() as u64);
            )+
            hash
        };
    };
}

payloads! {
    /// The exchange took the order.
    1 OrderAccepted OrderAcceptedForm ArchivedOrderAccepted "order_accepted" P1 Trade {
        order_id: text, exchange_order_id: text, instrument_id: text, direction: word(Direction), offset: word(Offset),
        price: number, volume: number, order_type: word(OrderType), frozen_margin: number,
    }
    /// The exchange refused the order.
    2 OrderRejected OrderRejectedForm ArchivedOrderRejected "order_rejected" P0 Trade {
        order_id: text, instrument_id: text, reason: text, error_code: code,
    }
    /// A part of the order was traded; the rest stays in the book.
    3 OrderPartiallyFilled OrderPartiallyFilledForm ArchivedOrderPartiallyFilled "order_partially_filled" P1 Trade {
        order_id: text, exchange_order_id: text, instrument_id: text, filled_volume: number,
        remaining_volume: number, average_price: number,
    }
    /// The order was traded completely.
    4 OrderFilled OrderFilledForm ArchivedOrderFilled "order_filled" P1 Trade {
        order_id: text, exchange_order_id: text, instrument_id: text, filled_volume: number, average_price: number,
    }
    /// The order was taken out of the book at somebody's wish.
    5 OrderCanceled OrderCanceledForm ArchivedOrderCanceled "order_canceled" P1 Trade {
        order_id: text, exchange_order_id: text, instrument_id: text, reason: text,
    }
    /// The order's time was over.
    6 OrderExpired OrderExpiredForm ArchivedOrderExpired "order_expired" P3 Trade {
        order_id: text, exchange_order_id: text, instrument_id: text, unfilled_volume: number, reason: text,
    }
    /// A trade happened.
    7 TradeExecuted TradeExecutedForm ArchivedTradeExecuted "trade_executed" P1 Trade {
        trade_id: text, order_id: text, exchange_order_id: text, instrument_id: text, direction: word(Direction),
        offset: word(Offset), price: number, volume: number, commission: number, fill_type: word(FillType),
    }
    /// A trade was taken back.
    8 TradeCanceled TradeCanceledForm ArchivedTradeCanceled "trade_canceled" P1 Trade {
        trade_id: text, order_id: text, exchange_order_id: text, instrument_id: text, price: number, volume: number,
        reason: text,
    }
    /// An account was opened.
    9 AccountOpen AccountOpenForm ArchivedAccountOpen "account_open" P2 Account {
        account_id: text, user_id: text, account_name: text, init_cash: number, account_type: account,
    }
    /// The state of an account.
    10 AccountUpdate AccountUpdateForm ArchivedAccountUpdate "account_update" P2 Account {
        user_id: text, balance: number, available: number, frozen: number, margin: number, position_profit: number,
        close_profit: number, risk_ratio: number,
    }
    /// The state of a position.
    11 PositionUpdate PositionUpdateForm ArchivedPositionUpdate "position_update" P2 Position {
        user_id: text, instrument_id: text, volume_long: number, volume_short: number, cost_long: number,
        cost_short: number, profit_long: number, profit_short: number,
    }
    /// The profit of a position.
    12 PositionProfit PositionProfitForm ArchivedPositionProfit "position_profit" P2 Position {
        user_id: text, instrument_id: text, float_profit: number, close_profit: number, settle_price: number,
    }
    /// An account is in danger.
    13 RiskAlert RiskAlertForm ArchivedRiskAlert "risk_alert" P0 Risk {
        user_id: text, alert_type: word(AlertType), severity: word(Severity), message: text, risk_ratio: number,
        suggestion: text,
    }
    /// The user must add margin until the deadline.
    14 MarginCall MarginCallForm ArchivedMarginCall "margin_call" P0 Risk {
        user_id: text, current_margin: number, required_margin: number, deadline: time, message: text,
    }
    /// A position is at its limit.
    15 PositionLimit PositionLimitForm ArchivedPositionLimit "position_limit" P0 Risk {
        user_id: text, instrument_id: text, current_volume: number, limit_volume: number, message: text,
    }
    /// The exchange has something to say.
    16 SystemNotice SystemNoticeForm ArchivedSystemNotice "system_notice" P3 System {
        title: text, content: text, level: word(Level),
    }
    /// A trading session begins.
    17 TradingSessionStart TradingSessionStartForm ArchivedTradingSessionStart "trading_session_start" P3 System {
        session_id: text, trading_day: text, name: text,
    }
    /// A trading session ends.
    18 TradingSessionEnd TradingSessionEndForm ArchivedTradingSessionEnd "trading_session_end" P3 System {
        session_id: text, trading_day: text, name: text,
    }
    /// Trading stops in one instrument, or (empty `instrument_id`) in the whole market; `resume_at` 0 is "not known".
    19 MarketHalt MarketHaltForm ArchivedMarketHalt "market_halt" P3 System {
        instrument_id: text, reason: text, resume_at: time,
    }
    /// A gateway tells engines: a user has one session more. See [`Presence`](crate::Presence).
    20 SessionOpened SessionOpenedForm ArchivedSessionOpened "session_opened" P1 Session {
        user_id: text, conn: text, sessions: code,
    }
    /// A gateway tells engines: a user has one session less; `sessions` are left, `code` and `reason` say why it ended.
    21 SessionClosed SessionClosedForm ArchivedSessionClosed "session_closed" P1 Session {
        user_id: text, conn: text, code: code, reason: text, sessions: code,
    }
    /// A gateway tells engines: only these users have sessions, of whom the next `users` records tell.
    22 SessionsReset SessionsResetForm ArchivedSessionsReset "sessions_reset" P1 Session {
        gateway: text, users: code,
    }
}
