use super::*;
use crate::config::NodeConfig;
use std::path::Path;

fn state(identities: &str) -> State {
    let text = format!(
        "cluster: {{ name: east, id: 1 }}\nnode: {{ name: east-1, index: 1 }}\nunderlay: {{ devices: [eth0] }}\n\
         clusters: [ {{ name: east, id: 1, prefixes: [10.1.0.0/16], identities: [{identities}] }} ]\n"
    );
    NodeConfig::parse(&text, Path::new("node.yaml"))
        .unwrap()
        .state()
        .unwrap()
}

fn revision(number: u64, state: &State) -> Revision {
    Revision {
        number,
        digest: state.digest(),
    }
}

fn ask(conversation: &mut Conversation, wanted: &State) -> Option<Request> {
    conversation.poll_request(&Arc::new(wanted.clone()), wanted.digest())
}

fn connected() -> Conversation {
    let mut conversation = Conversation::default();
    assert_eq!(
        ask(&mut conversation, &state("300")),
        None,
        "nobody to talk to"
    );
    conversation.handle_connected();
    conversation
}

#[test]
fn an_equal_digest_ends_the_talk() {
    let wanted = state("300");
    let mut conversation = connected();
    assert_eq!(ask(&mut conversation, &wanted), Some(Request::Revision));
    assert_eq!(ask(&mut conversation, &wanted), None, "one at a time");
    conversation.handle_response(Response::Revision(Some(revision(5, &wanted))));
    assert_eq!(ask(&mut conversation, &wanted), None);
    assert!(conversation.is_settled(wanted.digest()));
}

#[test]
fn a_data_plane_without_a_state_gets_the_whole() {
    let wanted = state("300");
    let mut conversation = connected();
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::Revision(None));
    // No state: asked for it would only answer `None`.
    let Some(Request::Replace { state }) = ask(&mut conversation, &wanted) else {
        panic!("not whole")
    };
    assert_eq!(*state, wanted);
    let heard = conversation.handle_response(Response::Applied {
        revision: revision(1, &wanted),
        changed: true,
    });
    assert_eq!(
        heard,
        Heard::Applied {
            revision: 1,
            changed: true
        }
    );
    assert!(conversation.is_settled(wanted.digest()));
}

/// Brings the talk to the point where the difference from `have` to `wanted` was sent.
fn difference_sent(have: &State, wanted: &State) -> Conversation {
    let mut conversation = connected();
    ask(&mut conversation, wanted);
    conversation.handle_response(Response::Revision(Some(revision(8, have))));
    assert_eq!(ask(&mut conversation, wanted), Some(Request::State));
    let heard = conversation.handle_response(Response::State(Some(Box::new(have.clone()))));
    assert_eq!(heard, Heard::InForce);
    assert_eq!(conversation.state(), Some(have));
    let Some(Request::Change {
        from,
        changes,
        digest,
    }) = ask(&mut conversation, wanted)
    else {
        panic!("no difference")
    };
    assert_eq!((from, digest), (8, wanted.digest()));
    assert_eq!(have.with_changes(changes).unwrap(), *wanted);
    conversation
}

#[test]
fn another_state_is_fetched_and_only_the_difference_sent() {
    let (have, wanted) = (state("300"), state("300, 301"));
    let mut conversation = difference_sent(&have, &wanted);
    conversation.handle_response(Response::Applied {
        revision: revision(9, &wanted),
        changed: true,
    });
    assert!(conversation.is_settled(wanted.digest()));
    // The next change starts from there without asking again.
    let next = state("302");
    assert!(matches!(
        ask(&mut conversation, &next),
        Some(Request::Change { from: 9, .. })
    ));
}

#[test]
fn a_gap_starts_over_and_a_mismatch_sends_the_whole() {
    let (have, wanted) = (state("300"), state("301"));
    let refuse = |reason| Response::Refused {
        reason,
        detail: String::new(),
    };
    let mut conversation = difference_sent(&have, &wanted);
    conversation.handle_response(refuse(Refusal::RevisionGap));
    assert_eq!(ask(&mut conversation, &wanted), Some(Request::Revision));

    let mut conversation = difference_sent(&have, &wanted);
    conversation.handle_response(refuse(Refusal::DigestMismatch));
    assert!(matches!(
        ask(&mut conversation, &wanted),
        Some(Request::Replace { .. })
    ));
    conversation.handle_response(refuse(Refusal::DigestMismatch));
    assert_eq!(ask(&mut conversation, &wanted), None, "no endless loop");
}

#[test]
fn a_refused_state_waits_for_a_retry_and_another_one_does_not() {
    let (have, wanted) = (state("300"), state("301"));
    let mut conversation = difference_sent(&have, &wanted);
    let detail = "why".to_owned();
    let heard = conversation.handle_response(Response::Refused {
        reason: Refusal::GuardFailed,
        detail: detail.clone(),
    });
    assert_eq!(
        heard,
        Heard::Refused {
            reason: Refusal::GuardFailed,
            detail
        }
    );
    assert_eq!(ask(&mut conversation, &wanted), None);
    assert!(!conversation.is_settled(wanted.digest()));
    conversation.retry();
    assert!(ask(&mut conversation, &wanted).is_some());

    let mut conversation = difference_sent(&have, &wanted);
    conversation.handle_response(Response::Refused {
        reason: Refusal::InvalidState,
        detail: String::new(),
    });
    assert!(ask(&mut conversation, &state("302")).is_some());
}

#[test]
fn a_state_that_changed_between_two_answers_is_not_trusted() {
    let wanted = state("300");
    let mut conversation = connected();
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::Revision(Some(revision(8, &state("301")))));
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::State(Some(Box::new(state("302")))));
    assert_eq!(ask(&mut conversation, &wanted), Some(Request::Revision));
    conversation.handle_response(Response::Revision(Some(revision(9, &state("302")))));
    assert!(matches!(
        ask(&mut conversation, &wanted),
        Some(Request::Replace { .. })
    ));
}

#[test]
fn a_lost_connection_forgets_what_was_known() {
    let (have, wanted) = (state("300"), state("301"));
    let mut conversation = difference_sent(&have, &wanted);
    conversation.handle_lost();
    assert!(!conversation.is_connected());
    assert_eq!(ask(&mut conversation, &wanted), None);
    assert_eq!(
        conversation.handle_response(Response::Revision(None)),
        Heard::OutOfOrder
    );
}

#[test]
fn liveness_is_asked_for_between_all_else() {
    let wanted = state("300");
    let mut conversation = connected();
    assert_eq!(
        conversation.poll_liveness(),
        None,
        "nothing is in force yet"
    );
    ask(&mut conversation, &wanted);
    assert_eq!(conversation.poll_liveness(), None, "one at a time");
    conversation.handle_response(Response::Revision(Some(revision(5, &wanted))));
    assert_eq!(conversation.poll_liveness(), Some(Request::Liveness));
    assert_eq!(conversation.poll_liveness(), None, "one at a time");
    assert!(
        conversation.is_settled(wanted.digest()),
        "it changes nothing"
    );
    assert_eq!(ask(&mut conversation, &state("301")), None, "one at a time");
    let status = LivenessStatus {
        changes: 7,
        ..LivenessStatus::default()
    };
    let heard = conversation.handle_response(Response::Liveness(status.clone()));
    assert_eq!(heard, Heard::Liveness(status));
    assert_eq!(ask(&mut conversation, &state("301")), Some(Request::State));
}

#[test]
fn peers_in_demand_are_asked_for_where_the_data_plane_knows_them() {
    let wanted = state("300");
    let mut conversation = connected();
    assert_eq!(conversation.poll_demand(), None, "nothing is in force yet");
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::Revision(Some(revision(5, &wanted))));
    assert_eq!(conversation.poll_demand(), Some(Request::Demand));
    assert!(
        conversation.is_settled(wanted.digest()),
        "it changes nothing"
    );
    let peers = vec!["2/1".parse().unwrap()];
    let heard = conversation.handle_response(Response::Demand {
        peers: peers.clone(),
    });
    assert_eq!(heard, Heard::Demand(peers));
    conversation.poll_demand();
    let heard = conversation.handle_response(Response::Refused {
        reason: Refusal::Malformed,
        detail: "unknown variant".to_owned(),
    });
    assert_eq!(heard, Heard::Nothing);
    assert_eq!(conversation.poll_demand(), None);
}

#[test]
fn a_data_plane_that_knows_no_liveness_is_not_asked_again() {
    let wanted = state("300");
    let mut conversation = connected();
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::Revision(Some(revision(5, &wanted))));
    conversation.poll_liveness();
    let heard = conversation.handle_response(Response::Refused {
        reason: Refusal::Malformed,
        detail: "unknown variant".to_owned(),
    });
    assert_eq!(heard, Heard::Nothing);
    assert_eq!(conversation.poll_liveness(), None);
    assert!(conversation.is_settled(wanted.digest()));
    conversation.handle_connected();
    ask(&mut conversation, &wanted);
    conversation.handle_response(Response::Revision(Some(revision(5, &wanted))));
    assert_eq!(
        conversation.poll_liveness(),
        Some(Request::Liveness),
        "another one"
    );
}
