//! Which records are shown. What the header can tell is asked of the header.

use bellwire::{Channel, MessageType, NotificationView, Priority, RecordHeader, UserHash};
use clap::Args;

use crate::names;

/// What to show; those of one kind add up, different kinds must all fit.
#[derive(Args, Debug)]
pub(crate) struct Filters {
    /// Only this priority: 0 (most urgent) to 3; may be repeated
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = names::priority, help_heading = "Filters")]
    priority: Vec<Priority>,
    /// Only this channel: trade, account, position, risk or system; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = names::channel, help_heading = "Filters")]
    channel: Vec<Channel>,
    /// Only this type, for example margin_call; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = names::message_type)]
    #[arg(help_heading = "Filters")]
    message_type: Vec<MessageType>,
    /// Only notifications for this user; '*' are those for everybody; may be repeated
    #[arg(long, value_name = "USER", help_heading = "Filters")]
    user: Vec<String>,
}

/// Empty lists mean: any.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    priorities: Vec<Priority>,
    channels: Vec<Channel>,
    types: Vec<MessageType>,
    users: Vec<(UserHash, String)>,
    /// Records that were published before are not shown; those whose time is not known are.
    since: Option<i64>,
}

impl Filter {
    pub(crate) fn new(filters: &Filters) -> Self {
        Self {
            priorities: filters.priority.clone(),
            channels: filters.channel.clone(),
            types: filters.message_type.clone(),
            users: filters.user.iter().map(|user| (UserHash::of(user), user.clone())).collect(),
            since: None,
        }
    }

    /// The same, and nothing that was published before.
    pub(crate) fn since(self, since: Option<i64>) -> Self {
        Self { since, ..self }
    }

    pub(crate) fn wants_priority(&self, priority: Priority) -> bool {
        self.priorities.is_empty() || self.priorities.contains(&priority)
    }

    /// The same of a record outside of a ring.
    pub(crate) fn wants_priority_of(&self, header: &RecordHeader) -> bool {
        Priority::from_number(header.priority).is_none_or(|priority| self.wants_priority(priority))
    }

    pub(crate) fn wants_header(&self, header: &RecordHeader) -> bool {
        let is_type_wanted = match MessageType::from_code(header.type_code) {
            Some(message_type) => {
                (self.types.is_empty() || self.types.contains(&message_type))
                    && (self.channels.is_empty() || self.channels.contains(&message_type.channel()))
            }
            // Let the check of the record say what is wrong with it.
            None => true,
        };
        let is_recent = match (self.since, header.published_at()) {
            (Some(since), Some(published_at)) => published_at >= since,
            _ => true,
        };
        is_type_wanted
            && is_recent
            && (self.users.is_empty() || self.users.iter().any(|(hash, _)| *hash == header.user_hash))
    }

    /// Users may share a hash: the text decides.
    pub(crate) fn wants(&self, view: &NotificationView<'_>) -> bool {
        self.users.is_empty() || self.users.iter().any(|(_, user)| user == view.user_id())
    }
}
