//! What is published: a [`Notification`] for one user (or everybody), built from borrowed strings.
//!
//! The payloads stand in one table, [`payload`]; the words that their fields may hold in [`words`];
//! the ids in [`id`]. Nothing here knows of memory layout: that is the codec.

pub mod id;
pub mod payload;
mod view;
pub mod words;

pub use id::{MessageId, ParseMessageIdError};
pub use payload::*;
pub use view::{NotificationView, UserHash};
pub use words::*;

/// The user id that addresses everybody. Such notifications form the stream `all`.
pub const EVERYBODY: &str = "*";

/// Longest user id, in bytes of UTF-8.
pub const USER_ID_BYTES_MAX: usize = 128;

/// How urgent a notification is. `P0` is the most urgent; each priority has a ring of its own in every lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// What must not wait: rejections, margin calls, risk alerts.
    P0 = 0,
    /// Orders and trades.
    P1 = 1,
    /// Accounts and positions.
    P2 = 2,
    /// Notices.
    P3 = 3,
}

impl Priority {
    /// Every priority, most urgent first.
    pub const ALL: [Priority; 4] = [Priority::P0, Priority::P1, Priority::P2, Priority::P3];

    /// 0 for `P0` up to 3 for `P3`: the number that clients see.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The priority with this number, or `None` above 3.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::P0),
            1 => Some(Self::P1),
            2 => Some(Self::P2),
            3 => Some(Self::P3),
            _ => None,
        }
    }
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "P{}", *self as u8)
    }
}

/// What a client subscribes to; and, last, what is for engines alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Orders and trades.
    Trade = 0,
    /// The account's state.
    Account = 1,
    /// Positions and their profit.
    Position = 2,
    /// Margin calls, alerts, limits.
    Risk = 3,
    /// Notices, trading sessions, halts.
    System = 4,
    /// Who is connected: gateways tell it to engines, on a bus of its own. No client can subscribe to it.
    Session = 5,
}

impl Channel {
    /// Every channel that clients can subscribe to, in the order in which the protocol lists them.
    pub const ALL: [Channel; 5] =
        [Channel::Trade, Channel::Account, Channel::Position, Channel::Risk, Channel::System];

    /// The name clients use: `trade`, `account`, `position`, `risk` or `system`; and `session`, which they cannot.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Account => "account",
            Self::Position => "position",
            Self::Risk => "risk",
            Self::System => "system",
            Self::Session => "session",
        }
    }

    /// The channel of that name; `None` if clients can subscribe to no such channel.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One notification, borrowed from the caller's own strings: building it allocates nothing.
///
/// The payload decides the [`MessageType`], so the two cannot disagree.
///
/// ```
/// use bellwire::{MarginCall, Notification, Priority};
///
/// let call = Notification::new(
///     "user_01",
///     "RiskControl",
///     MarginCall {
///         user_id: "user_01",
///         current_margin: 4_200.0,
///         required_margin: 5_000.0,
///         deadline: 1_728_127_056_000_000_000,
///         message: "add 800 by noon",
///         timestamp: 1_728_123_456_000_000_000,
///     },
/// );
/// assert_eq!(call.priority, Priority::P0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Notification<'a> {
    /// Whom it is for; [`EVERYBODY`] for all. 1 to [`USER_ID_BYTES_MAX`] bytes.
    pub user_id: &'a str,
    /// Which system says so, for example `MatchingEngine`. May be empty.
    pub source: &'a str,
    /// The ring it goes through; [`Notification::new`] sets the type's default.
    pub priority: Priority,
    /// The key for de-duplication. `None`: the producer composes one when publishing. A producer that replays its
    /// own log gives the id it gave before.
    pub message_id: Option<MessageId>,
    /// Nanoseconds since the Unix epoch. `None`: the time of publishing. If it is given, latencies of this
    /// notification are reported as unknown, since nobody can tell when it was published.
    pub timestamp: Option<i64>,
    /// What happened.
    pub payload: Payload<'a>,
}

impl<'a> Notification<'a> {
    /// A notification with the type's default priority and an id and a time made when it is published.
    #[inline]
    pub fn new(user_id: &'a str, source: &'a str, payload: impl Into<Payload<'a>>) -> Self {
        let payload = payload.into();
        Self {
            user_id,
            source,
            priority: payload.message_type().default_priority(),
            message_id: None,
            timestamp: None,
            payload,
        }
    }

    /// A notification for everybody: one record, however many users there are.
    #[inline]
    pub fn to_all(source: &'a str, payload: impl Into<Payload<'a>>) -> Self {
        Self::new(EVERYBODY, source, payload)
    }

    /// The same with another priority than the type's default.
    #[inline]
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The same with a given id.
    #[inline]
    #[must_use]
    pub fn with_message_id(self, id: MessageId) -> Self {
        Self { message_id: Some(id), ..self }
    }

    /// The same with a given time, in nanoseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn with_timestamp(self, timestamp: i64) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// The type, as the payload decides it.
    #[inline]
    pub fn message_type(&self) -> MessageType {
        self.payload.message_type()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_by_the_names_that_clients_use_and_sessions_are_not() {
        let names = Channel::ALL.map(Channel::name);
        assert_eq!(names, ["trade", "account", "position", "risk", "system"]);
        assert_eq!(names.map(Channel::from_name), Channel::ALL.map(Some));
        assert_eq!(Channel::from_name(Channel::Session.name()), None);
        assert_eq!((Channel::Session.name(), Channel::from_name("")), ("session", None));
    }

    #[test]
    fn what_is_given_stays_and_the_rest_is_the_default_of_the_type() {
        let notice = SystemNotice { title: "t", content: "c", level: Level::Info, timestamp: 0 };
        let plain = Notification::to_all("Test", notice);
        assert_eq!((plain.user_id, plain.source, plain.priority), (EVERYBODY, "Test", Priority::P3));
        assert_eq!((plain.message_id, plain.timestamp), (None, None));
        assert_eq!(plain.message_type(), MessageType::SystemNotice);

        let id = MessageId::from_bytes([7; 16]);
        let given = plain.with_priority(Priority::P0).with_message_id(id).with_timestamp(5);
        assert_eq!((given.priority, given.message_id, given.timestamp), (Priority::P0, Some(id), Some(5)));
        assert_eq!(given.payload, plain.payload);
    }

    #[test]
    fn priorities_are_their_numbers() {
        for (number, priority) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(priority.index(), number);
            assert_eq!(Priority::from_number(number as u8), Some(priority));
        }
        assert_eq!(Priority::from_number(4), None);
    }
}
