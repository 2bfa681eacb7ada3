use proptest::prelude::*;

use super::*;

fn time(longest: u64) -> impl Strategy<Value = Duration> {
    // Round numbers as people write them, and odd ones.
    prop_oneof![
        Just(Duration::ZERO),
        (0..=longest).prop_map(Duration::from_secs),
        (0..=longest * 1000).prop_map(Duration::from_millis),
        (0..=longest * 1_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        (0_u32..=100).prop_map(Chance::percent),
        (0_u32..=1_000_000_000).prop_map(Chance::parts_per_billion),
    ]
}

prop_compose! {
    /// Every impairment that can be written.
    pub(in crate::wire) fn any_impairment()(
        (loss, duplicate, reordered, corrupt) in (chance(), chance(), chance(), chance()),
        (depth, hold) in (1_u32..=20_000, time(10)),
        (delay, jitter) in (time(60), time(60)),
        rate in proptest::option::of((1000_u64..=100_000_000_000, prop_oneof![Just(Rate::QUEUE), 0_usize..1 << 30])),
        mtu in proptest::option::of(68_usize..=65_535),
        cut in proptest::bool::weighted(0.1),
    ) -> Impairment {
        Impairment {
            loss,
            duplicate,
            reorder: Reorder { chance: reordered, depth, hold },
            corrupt,
            delay,
            jitter,
            rate: rate.map(|(bits, queue)| Rate { bits, queue }),
            mtu,
            cut,
        }
    }
}

proptest! {
    #[test]
    fn every_impairment_survives_its_own_text(impairment in any_impairment()) {
        let text = impairment.to_string();
        prop_assert_eq!(text.parse::<Impairment>().unwrap(), impairment, "{}", text);
        let json = serde_json::to_string(&impairment).unwrap();
        prop_assert_eq!(serde_json::from_str::<Impairment>(&json).unwrap(), impairment);
    }

    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "[a-z0-9%. ]{0,40}|(loss|delay|rate|mtu|depth) \\PC{0,20}") {
        if let Err(error) = text.parse::<Impairment>() {
            let told = format!("{error:#}");
            prop_assert!(!told.contains('\n'), "{}", told);
        }
    }
}

#[test]
fn the_words_of_the_manual_mean_what_they_say() {
    let text =
        "loss 5% delay 20ms jitter 5ms reorder 1% duplicate 1% corrupt 0.1% rate 100mbit mtu 1400";
    let read: Impairment = text.parse().unwrap();
    let expected = Impairment {
        loss: Chance::percent(5),
        duplicate: Chance::percent(1),
        reorder: Reorder {
            chance: Chance::percent(1),
            ..Reorder::default()
        },
        corrupt: Chance::parts_per_billion(1_000_000),
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        rate: Some(Rate {
            bits: 100_000_000,
            queue: 256 << 10,
        }),
        mtu: Some(1400),
        cut: false,
    };
    assert_eq!(read, expected);
    assert_eq!(
        read.to_string(),
        "loss 5% duplicate 1% reorder 1% corrupt 0.1% delay 20ms jitter 5ms rate 100mbit mtu 1400"
    );
    assert_eq!("cut".parse::<Impairment>().unwrap(), Impairment::cut());
    assert_eq!(
        " clean ".parse::<Impairment>().unwrap(),
        Impairment::default()
    );
    assert_eq!(Impairment::default().to_string(), "clean");
}

#[test]
fn wrong_words_are_refused_with_field_value_and_rule() {
    for (text, expected) in [
        ("", "impairment: empty: write `clean` for a clean wire"),
        (
            "lag 5ms",
            "impairment: \"lag\": must be loss, duplicate, reorder, depth, hold, corrupt, delay, jitter, rate, queue, \
             mtu, cut or clean",
        ),
        ("loss", "loss: no value: write one behind it"),
        (
            "loss 5",
            "loss: 5: must be 0% to 100%, with 7 decimals at most: 0.5%",
        ),
        (
            "loss 101%",
            "loss: 101%: must be 0% to 100%, with 7 decimals at most: 0.5%",
        ),
        (
            "corrupt 0.12345678%",
            "corrupt: 0.12345678%: must be 0% to 100%, with 7 decimals at most: 0.5%",
        ),
        (
            "delay 20",
            "delay: 20: must be a whole number with one of ns, us, ms, s: 20ms",
        ),
        ("delay 61s", "delay: 61s: must be 60s at most"),
        ("reorder 1% hold 11s", "hold: 11s: must be 10s at most"),
        ("reorder 1% depth 0", "depth: 0: must be 1 to 20000 frames"),
        ("rate 999bit", "rate: 999bit: must be 1kbit at least"),
        (
            "rate 10mb",
            "rate: 10mb: must be a whole number with one of bit, kbit, mbit, gbit: 100mbit",
        ),
        (
            "queue 64kib",
            "queue: without a rate nothing waits: name a rate as well",
        ),
        ("mtu 67", "mtu: 67: must be 68 to 65535 bytes"),
        ("loss 5% loss 6%", "loss: given twice: once is enough"),
        ("clean loss 5%", "clean: must stand alone"),
    ] {
        let error = text.parse::<Impairment>().unwrap_err();
        assert_eq!(format!("{error:#}"), expected);
    }
}

#[test]
fn chances_are_exact_at_both_ends() {
    for draw in [0, 1, u64::MAX / 2, u64::MAX] {
        assert!(!Chance::NEVER.happens(draw));
        assert!(Chance::ALWAYS.happens(draw));
    }
    assert!(Chance::parts_per_billion(1).happens(0));
    assert!(!Chance::parts_per_billion(999_999_999).happens(u64::MAX));
}
