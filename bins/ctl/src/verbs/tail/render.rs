//! A record as it will be printed.

use bellwire::NotificationView;

use crate::output::line::Line;

/// Text or JSON.
pub(super) enum Render {
    Text(Line),
    Json,
}

impl Render {
    pub(super) fn of(&mut self, lane: &str, view: &NotificationView<'_>) -> Vec<u8> {
        match self {
            Self::Text(line) => line.of_view(lane, view).as_bytes().to_vec(),
            Self::Json => {
                let mut text = Vec::new();
                bellwire::json::write(view, &mut text);
                text
            }
        }
    }
}
