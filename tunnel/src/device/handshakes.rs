//! Messages of handshakes: who may have them looked at, and which pairs of lanes they are for.

use super::Device;
use crate::batch::Datagrams;
use crate::forwarding::Forwarding;
use crate::handshake_limit::HandshakeLimits;
use crate::lane::{Lane, LaneNumber};
use crate::outgoing::ByLane;
use crate::own_key::OwnKey;
use crate::reject::Reject;
use crate::wireguard::Message;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

impl Device {
    /// Whether an initiation whose first MAC is right may be looked at.
    ///
    /// Its source is not proven, so a source that has used up its share is not refused: it is asked
    /// for a cookie, or somebody could use up another's share in its name. Who comes with the cookie
    /// has a share of its own.
    fn admit(
        &self,
        own: &OwnKey,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let Some(refusal) = self.limits().claimed(from.ip(), now) else {
            return Ok(());
        };
        let mut cookies = own.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        if cookies.verify(message, from, now) {
            return match self.limits().proven(from.ip(), now) {
                true => Ok(()),
                false => Err(Reject::WgSourceLimit),
            };
        }
        // Without random bytes nobody is given a cookie that could be guessed.
        let random = crate::io::clock::random().ok();
        let reply = random.and_then(|random| cookies.reply(message, from, now, random));
        if let Some(reply) = reply {
            out.push(&reply, from);
        }
        Err(refusal)
    }

    fn limits(&self) -> MutexGuard<'_, HandshakeLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a handshake message that came to our lane `own`.
    pub(crate) fn handle_handshake(
        &self,
        table: &Forwarding,
        own: LaneNumber,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut impl ByLane,
    ) -> Result<(), Reject> {
        let lane_of = |receiver| table.lane_by_index(receiver).map(|(_, lane)| lane);
        let lane = match Message::parse(message)? {
            Message::Initiation => {
                // A peer that has not learnt of a newer key of ours asks for the older.
                let keys = self.own(own).keys();
                let key = keys.addressed(message).ok_or(Reject::WgMac1)?;
                self.admit(key, message, from, now, out.of(own))?;
                let initiator = crate::engine::initiator(&key.private, &key.public, message)?;
                let lanes = table.lanes_by_key(own, &initiator).iter();
                let lanes = lanes.filter(|lane| lane.key().public == key.public);
                let done = answer(lanes.clone(), message, from, now, out);
                lanes.for_each(|lane| self.note_released(lane));
                return done;
            }
            // An answer names an index that only our initiation carried: whoever does not know one
            // is done with before any limit, and uses up nobody's share.
            Message::Response { receiver } => {
                let lane = lane_of(receiver).ok_or(Reject::WgUnknownIndex)?;
                if !lane.key().mac1.verify(message) {
                    return Err(Reject::WgMac1);
                }
                lane
            }
            Message::Cookie { receiver } => lane_of(receiver).ok_or(Reject::WgUnknownIndex)?,
            Message::Data { .. } => return Err(Reject::WgMalformed),
        };
        let done = lane.handle_handshake(message, from, now, out.of(lane.own()));
        self.note_released(lane);
        done
    }
}

/// Answers an initiation for every pair that it may be for. It does not tell which pre-shared key its sender has: while one
/// is changed there are two, each side may be late, and the sender takes the answer that is right.
fn answer<'a>(
    lanes: impl Iterator<Item = &'a Arc<Lane>>,
    message: &[u8],
    from: SocketAddr,
    now: Instant,
    out: &mut impl ByLane,
) -> Result<(), Reject> {
    let mut outcome = Err(Reject::WgUnknownPeer);
    for lane in lanes {
        let done = lane.handle_handshake(message, from, now, out.of(lane.own()));
        outcome = match outcome {
            Ok(()) => Ok(()),
            Err(_) => done,
        };
    }
    outcome
}
