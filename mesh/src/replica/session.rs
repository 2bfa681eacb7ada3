//! One connection, on which one side publishes and the other subscribes.

use super::Stream;
use super::publisher::Publisher;
use super::reject::Reject;
use super::shelf::Shelf;
use super::subscriber::Subscriber;
use crate::wire::{Body, Hello, MINOR};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Session {
    /// Whether our hello is still to be sent.
    greets: bool,
    /// Whether theirs came.
    greeted: bool,
    pub(super) side: Side,
}

#[derive(Debug)]
pub(super) enum Side {
    Publisher(Publisher),
    Subscriber(Subscriber),
}

impl Session {
    pub(super) fn new(side: Side) -> Self {
        Self {
            greets: true,
            greeted: false,
            side,
        }
    }

    pub(super) fn handle(
        &mut self,
        shelf: &mut Shelf,
        stream: Stream,
        body: Body,
        now: Instant,
    ) -> Result<(), Reject> {
        if matches!(body, Body::Snapshot(_)) != (stream == Stream::Bulk) {
            return Err(Reject::WrongStream);
        }
        match (&body, self.greeted) {
            (Body::Hello(_), true) => return Err(Reject::HelloTwice),
            (Body::Hello(_), false) => {
                self.greeted = true;
                return Ok(());
            }
            // The other stream may be faster.
            (_, false) if stream == Stream::Changes => return Err(Reject::HelloMissing),
            (_, _) => {}
        }
        match &mut self.side {
            Side::Publisher(publisher) => publisher.handle(shelf, body),
            Side::Subscriber(subscriber) => subscriber.handle(shelf, body, now),
        }
    }

    pub(super) fn poll(&mut self, shelf: &mut Shelf, now: Instant) -> Option<(Stream, Body)> {
        let writable = match &self.side {
            Side::Publisher(publisher) => publisher.writable[Stream::Changes.index()],
            Side::Subscriber(subscriber) => subscriber.writable,
        };
        if self.greets && writable {
            self.greets = false;
            let hello = Hello {
                minor: MINOR,
                program: env!("CARGO_PKG_VERSION").to_owned(),
            };
            return Some((Stream::Changes, Body::Hello(hello)));
        }
        match &mut self.side {
            Side::Publisher(publisher) => publisher.poll(shelf, now),
            Side::Subscriber(subscriber) => subscriber.poll(shelf, now),
        }
    }
}
