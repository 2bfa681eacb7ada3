//! Which of the watched peers are alive, as the data plane says.

use hawser_tunnel::liveness::State;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::status::{LivenessStatus, PeerLiveness};
use std::collections::BTreeMap;

/// What is known of the watched peers.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    peers: BTreeMap<NodeId, PeerLiveness>,
}

impl Liveness {
    /// Takes what the data plane thinks; returns the peers of which it thinks something else than before, or that died and
    /// came back since. Of a peer that is new here nothing is said before it was heard or found dead.
    pub(super) fn handle_status(&mut self, status: LivenessStatus) -> Vec<(NodeId, PeerLiveness)> {
        let is_news = |id: &NodeId, peer: &PeerLiveness| match self.peers.get(id) {
            None => peer.state != State::Unknown,
            Some(before) => {
                (before.state, before.deaths) != (peer.state, peer.deaths)
                    // A data plane that starts knows nothing yet, which is no news.
                    && peer.state != State::Unknown
            }
        };
        let peers = status.peers.iter();
        let news = peers.filter(|(id, peer)| is_news(id, peer));
        let news = news.map(|(&id, &peer)| (id, peer)).collect();
        self.peers = status.peers;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State, deaths: u64) -> LivenessStatus {
        let peer = PeerLiveness {
            state,
            last_reply_ms: None,
            round_trip_us: None,
            deaths,
            hold_down_ms: 0,
        };
        LivenessStatus {
            changes: 0,
            peers: BTreeMap::from([("2/1".parse().unwrap(), peer)]),
        }
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut liveness = Liveness::default();
        let mut said = |state, deaths| {
            let news = liveness.handle_status(status(state, deaths));
            news.first().map(|(_, peer)| peer.state)
        };
        assert_eq!(said(State::Unknown, 0), None);
        assert_eq!(said(State::Alive, 0), Some(State::Alive));
        assert_eq!(said(State::Alive, 0), None);
        assert_eq!(
            said(State::Alive, 1),
            Some(State::Alive),
            "it was dead between"
        );
        assert_eq!(said(State::Dead, 2), Some(State::Dead));
        assert_eq!(said(State::Damped, 2), Some(State::Damped));
        assert_eq!(said(State::Unknown, 0), None, "another data plane");
        assert_eq!(said(State::Dead, 1), Some(State::Dead));
    }

    #[test]
    fn who_is_not_watched_any_more_is_forgotten() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.handle_status(status(State::Dead, 1)).len(), 1);
        assert!(liveness.handle_status(LivenessStatus::default()).is_empty());
        assert_eq!(liveness.handle_status(status(State::Dead, 1)).len(), 1);
    }
}
