//! A record as it will be printed.

use bellwire::NotificationView;

use crate::output::line::Line;

/// Text or JSON, or nothing where it is only counted.
pub(crate) enum Render {
    Nothing,
    Text(Line),
    Json,
}

impl Render {
    /// `place` is where it was found, for people.
    pub(crate) fn of(&mut self, place: &str, view: &NotificationView<'_>) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Text(line) => line.of_view(place, view).as_bytes().to_vec(),
            Self::Json => {
                let mut text = Vec::new();
                bellwire::json::write(view, &mut text);
                text
            }
        }
    }
}
