//! The protocol's close and error codes in words, and what a client does about each.

use crate::exit::Exit;

/// What a code tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) words: &'static str,
    /// Whether connecting again, unchanged, makes sense.
    pub(crate) retry: bool,
    pub(crate) exit: Exit,
}

/// What that close code means.
pub(crate) fn explain(code: u16) -> Code {
    let retry = |words| Code { words, retry: true, exit: Exit::Wrong };
    let stop = |words, exit| Code { words, retry: false, exit };
    match code {
        1000 => retry("the gateway closed the session in order"),
        1001 => retry("the gateway is going away"),
        1002 => stop("the gateway says we broke the WebSocket protocol", Exit::Wrong),
        1003 => stop("the gateway takes text frames only", Exit::Wrong),
        1007 => stop("the gateway got text that is not UTF-8", Exit::Wrong),
        1009 => stop("the gateway found our frame too long", Exit::Wrong),
        1011 => retry("the gateway had an internal fault"),
        4001 => {
            retry("the gateway is shutting down (drain); it can be resumed elsewhere or after its restart")
        }
        4002 => retry("we read too slowly and fell too far behind; resuming picks up what is missing"),
        4003 => retry("the gateway heard nothing from us for too long (heartbeat timeout)"),
        4005 => retry("we sent too many frames (rate limit)"),
        4006 => retry("the gateway cannot reach its bus now"),
        4000..=4499 => retry("the gateway asks us to come back"),
        4500 => stop("the gateway did not understand our request", Exit::Wrong),
        4501 => stop("we did not authenticate in time", Exit::Refused),
        4502 => stop("the token was refused; `bellwirectl token check` says why", Exit::Refused),
        4503 => stop("the token has expired; make a new one with `bellwirectl token new`", Exit::Refused),
        4504 => stop("the token was revoked", Exit::Refused),
        4505 => stop("an operator ended this session", Exit::Refused),
        4506 => stop("this user or address has too many sessions; end one of them", Exit::Busy),
        4507 => stop("the gateway found a record of another user in this session and ended it", Exit::Wrong),
        4510 => stop("there is no such channel", Exit::Usage),
        4511 => stop(
            "the gateway cannot resume there: the position lies beyond the stream's head. It belongs to another \
             user, bus or journal: resume without it (delete the resume file)",
            Exit::Wrong,
        ),
        4512 => stop("the token does not permit this channel", Exit::Refused),
        4513 => stop("the gateway wants a token first", Exit::Refused),
        4508..=4509 | 4514..=4999 => stop("the gateway does not want us to try again unchanged", Exit::Wrong),
        _ => retry("no code of this protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_ranges_of_the_protocol_decide_about_coming_back() {
        assert!((4000..4500).all(|code| explain(code).retry));
        assert!((4500..5000).all(|code| !explain(code).retry));
    }
}
