//! What happens at the edges: forks and zombies, clocks that jump, counts near their end, no file descriptors left.

#[path = "edges/clocks.rs"]
mod clocks;
mod common;
#[path = "edges/consumers.rs"]
mod consumers;
#[path = "edges/counts.rs"]
mod counts;
#[path = "edges/descriptors.rs"]
mod descriptors;
#[path = "edges/forks.rs"]
mod forks;

use bellwire::{Priority, Producer, PublishError, Reader};
use common::{note, title};

/// Publishes a note with that number for its title, however often it has to be tried.
fn publish(producer: &mut Producer, number: u64) -> bellwire::Published {
    let name = number.to_string();
    loop {
        match producer.publish(&note("user", &name, "")) {
            Ok(published) => return published,
            Err(PublishError::Full { .. }) => std::thread::sleep(std::time::Duration::from_micros(100)),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Reads what there is in P1, of all lanes; the numbers in the notes' titles.
fn drain(reader: &mut Reader) -> Vec<u64> {
    let mut read = Vec::new();
    reader.refresh();
    for lane in reader.lanes() {
        while let Some(slot) = reader.peek(lane, Priority::P1).unwrap() {
            read.push(title(&slot.view().unwrap()).parse().unwrap());
            reader.advance(lane, Priority::P1);
        }
    }
    read
}

/// Lines that a child printed, behind `prefix`.
fn said(stdout: std::process::ChildStdout, prefix: &'static str) -> impl Iterator<Item = String> {
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
    lines.map_while(Result::ok).filter_map(move |line| line.strip_prefix(prefix).map(str::to_owned))
}
