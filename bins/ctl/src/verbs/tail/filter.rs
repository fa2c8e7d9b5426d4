//! Which records a tail shows. What the header can tell is asked of the header.

use bellwire::{Channel, MessageType, NotificationView, Priority, RecordHeader, UserHash};

/// Empty lists mean: any.
#[derive(Debug, Default)]
pub(super) struct Filter {
    priorities: Vec<Priority>,
    channels: Vec<Channel>,
    types: Vec<MessageType>,
    users: Vec<(UserHash, String)>,
}

impl Filter {
    pub(super) fn new(
        priorities: &[Priority],
        channels: &[Channel],
        types: &[MessageType],
        users: &[String],
    ) -> Self {
        Self {
            priorities: priorities.to_vec(),
            channels: channels.to_vec(),
            types: types.to_vec(),
            users: users.iter().map(|user| (UserHash::of(user), user.clone())).collect(),
        }
    }

    pub(super) fn wants_priority(&self, priority: Priority) -> bool {
        self.priorities.is_empty() || self.priorities.contains(&priority)
    }

    pub(super) fn wants_header(&self, header: &RecordHeader) -> bool {
        let is_type_wanted = match MessageType::from_code(header.type_code) {
            Some(message_type) => {
                (self.types.is_empty() || self.types.contains(&message_type))
                    && (self.channels.is_empty() || self.channels.contains(&message_type.channel()))
            }
            // Let the check of the record say what is wrong with it.
            None => true,
        };
        is_type_wanted
            && (self.users.is_empty() || self.users.iter().any(|(hash, _)| *hash == header.user_hash))
    }

    /// Users may share a hash: the text decides.
    pub(super) fn wants(&self, view: &NotificationView<'_>) -> bool {
        self.users.is_empty() || self.users.iter().any(|(_, user)| user == view.user_id())
    }
}
