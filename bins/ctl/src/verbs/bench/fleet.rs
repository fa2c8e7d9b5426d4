//! All sessions on one thread and one epoll: no task, no channel and no copy for a frame.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::client::{Client, Door, Ended, Stage};
use super::tally::Tally;

/// Connections that are being opened at once.
const OPENING_MAX: usize = 256;

/// The most that is read from one socket at once; twice the longest frame.
const BUFFER_LEN: usize = 2 << 20;

pub(super) struct Fleet {
    epoll: Epoll,
    door: Door,
    pub(super) clients: Vec<Client>,
    pub(super) tally: Tally,
    buffer: Vec<u8>,
    events: Vec<EpollEvent>,
    /// Sessions that are to be connected, from this one on.
    next: usize,
    opening: usize,
    pub(super) ready: usize,
    /// Sessions that ended although nobody wanted them to, and why the first did.
    pub(super) broken: u64,
    pub(super) complaint: Option<String>,
}

impl Fleet {
    pub(super) fn new(door: Door, clients: Vec<Client>) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            door,
            tally: Tally::new(clients.len()),
            next: clients.len(),
            clients,
            buffer: vec![0; BUFFER_LEN],
            events: vec![EpollEvent::empty(); 1024],
            opening: 0,
            ready: 0,
            broken: 0,
            complaint: None,
        })
    }

    /// Connects all sessions, as many at a time as a gateway would see in a storm. Those that have a position resume.
    pub(super) fn connect(&mut self) {
        self.next = 0;
    }

    /// All sessions go away at once, without a word.
    pub(super) fn disconnect(&mut self) {
        self.clients.iter_mut().for_each(Client::drop_connection);
        (self.next, self.opening, self.ready) = (self.clients.len(), 0, 0);
    }

    /// Goes on until the condition holds; `false`: the time was over before, or every session is gone.
    pub(super) fn run(&mut self, time: Duration, mut until: impl FnMut(&Self) -> bool) -> io::Result<bool> {
        let end = Instant::now() + time;
        loop {
            if until(self) {
                return Ok(true);
            }
            if Instant::now() >= end || self.broken > 0 {
                return Ok(false);
            }
            self.poll()?;
        }
    }

    fn poll(&mut self) -> io::Result<()> {
        while self.opening < OPENING_MAX && self.next < self.clients.len() {
            let index = self.next;
            self.next += 1;
            let client = &mut self.clients[index];
            match client.connect(&self.door) {
                Ok(socket) => {
                    let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    self.epoll.add(socket.as_fd(), EpollEvent::new(interest, index as u64))?;
                    self.opening += 1;
                }
                Err(error) => self.lose(index, format!("connect: {error}")),
            }
        }
        let mut events = std::mem::take(&mut self.events);
        let waited = self.epoll.wait(&mut events, EpollTimeout::from(2_u8));
        let count = match waited {
            Err(nix::errno::Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &events[..count] {
            let index = event.data() as usize;
            let before = self.clients[index].stage;
            if before == Stage::Closed {
                continue;
            }
            if let Err(why) = self.attend(index, event.events()) {
                self.lose(index, why);
            } else if before != Stage::Ready && self.clients[index].stage == Stage::Ready {
                self.opening -= 1;
                self.ready += 1;
            }
        }
        self.events = events;
        Ok(())
    }

    fn attend(&mut self, index: usize, events: EpollFlags) -> Result<(), Ended> {
        let client = &mut self.clients[index];
        if events.contains(EpollFlags::EPOLLOUT) {
            client.connected(&self.door)?;
        }
        if events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            // Edges: a read that is not short may have left something.
            while client.readable(&mut self.buffer, &mut self.tally)? {}
        }
        Ok(())
    }

    fn lose(&mut self, index: usize, why: Ended) {
        let client = &mut self.clients[index];
        match client.stage {
            Stage::Ready => self.ready -= 1,
            Stage::Closed => {}
            _ => self.opening -= 1,
        }
        client.drop_connection();
        self.broken += 1;
        self.complaint.get_or_insert_with(|| format!("session {index}: {why}"));
    }
}
