use super::*;
use proptest::prelude::*;

fn token(purpose: Purpose) -> Token {
    Token {
        purpose,
        clusterset: "demo.example".to_owned(),
        cluster: "east".to_owned(),
        name: "east-1".to_owned(),
        hubs: vec![
            "hub.east.example:6082".to_owned(),
            "[2001:db8::1]:6082".to_owned(),
        ],
        pin: Pin::of_public_key(b"a key"),
        secret: Secret::from_slice(&[7; 32]).unwrap(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

/// A whole text around a message that some other maker wrote.
fn text(purpose: Purpose, message: &[u8]) -> String {
    let mut bytes = message.to_vec();
    bytes.extend_from_slice(&checksum(purpose, message));
    format!("{}{}", purpose.prefix(), URL_SAFE_NO_PAD.encode(bytes))
}

fn wire() -> Wire {
    let text = token(Purpose::Node).encode();
    let bytes = URL_SAFE_NO_PAD
        .decode(text.strip_prefix("hawser-node.").unwrap())
        .unwrap();
    Wire::decode(&bytes[..bytes.len() - CHECKSUM]).unwrap()
}

#[test]
fn what_is_written_is_read() {
    for purpose in [Purpose::Node, Purpose::Cluster] {
        let token = token(purpose);
        let text = token.encode();
        assert!(Token::parse(&text) == Ok(token.clone()));
        assert!(Token::parse(&format!("\u{feff}\n {}\r\n", &*text)).is_err());
        assert!(Token::parse(&format!("\n\t {} \r\n\n", &*text)) == Ok(token));
    }
}

#[test]
fn the_text_is_what_it_was() {
    let text = token(Purpose::Node).encode();
    assert_eq!(
        &*text,
        "hawser-node.CgxkZW1vLmV4YW1wbGUSBGVhc3QaBmVhc3QtMSIVaHViLmVhc3QuZXhhbXBsZTo2MDgyIhJbMjAwMTpkYjg6OjFdOjYwODIq\
         II-jqrL6qbeeCgOY2ltavQeAFCRCpb6AuaZGCNcYyx_NMiAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBziApKfaBsihuTI"
    );
}

#[test]
fn each_wrong_text_has_its_name_and_one_line() {
    let good = token(Purpose::Node).encode();
    let body = good.strip_prefix("hawser-node.").unwrap();
    let with = |at: usize, c: char| {
        let mut text: Vec<char> = good.chars().collect();
        text[at] = c;
        text.into_iter().collect::<String>()
    };
    let changed = with(
        40,
        if good.as_bytes()[40] == b'A' {
            'B'
        } else {
            'A'
        },
    );
    let cases: Vec<(&str, String, &str)> = vec![
        ("token_missing", String::new(), "is empty"),
        ("token_missing", " \n\t".to_owned(), "is empty"),
        (
            "token_alphabet",
            format!("\u{201c}{}\u{201d}", &*good),
            "a typographic quote at character 1;",
        ),
        (
            "token_alphabet",
            format!("\u{2019}{}", &*good),
            "a typographic quote at character 1;",
        ),
        (
            "token_alphabet",
            format!("\"{}\"", &*good),
            "a quote at character 1;",
        ),
        (
            "token_alphabet",
            with(6, '\u{2013}'),
            "a typographic dash at character 7;",
        ),
        ("token_alphabet", with(20, ' '), "a blank at character 21;"),
        (
            "token_alphabet",
            with(20, '\n'),
            "a line break at character 21;",
        ),
        (
            "token_alphabet",
            with(20, '\u{200b}'),
            "an invisible character at character 21;",
        ),
        (
            "token_alphabet",
            with(20, '+'),
            "of another base64 at character 21;",
        ),
        (
            "token_alphabet",
            format!("{}=", &*good),
            "of another base64 at character",
        ),
        (
            "token_alphabet",
            with(20, '\0'),
            "a control character at character 21;",
        ),
        (
            "token_alphabet",
            with(20, '!'),
            "a sign that no token has at character 21;",
        ),
        (
            "token_alphabet",
            with(20, '\u{00e9}'),
            "a character that is not ASCII at character 21;",
        ),
        (
            "token_alphabet",
            "/etc/hawser/token".to_owned(),
            "at character 1;",
        ),
        (
            "token_prefix",
            body.to_owned(),
            "must begin with hawser-node.",
        ),
        (
            "token_prefix",
            format!("Hawser-node.{body}"),
            "must begin with",
        ),
        (
            "token_prefix",
            format!("hawser-nodes.{body}"),
            "must begin with",
        ),
        ("token_prefix", "hawser-node".to_owned(), "must begin with"),
        (
            "token_truncated",
            "hawser-node.".to_owned(),
            "was cut off: has 12 characters",
        ),
        (
            "token_truncated",
            good[..60].to_owned(),
            "was cut off: has 60 characters",
        ),
        (
            "token_too_long",
            format!("{}{}", &*good, "A".repeat(MAX_TEXT)),
            "must be at most 8192",
        ),
        (
            "token_checksum",
            good[..good.len() - 1].to_owned(),
            "was changed or cut off",
        ),
        (
            "token_checksum",
            good[..good.len() - 9].to_owned(),
            "was changed or cut off",
        ),
        (
            "token_checksum",
            format!("{}A", &*good),
            "was changed or cut off",
        ),
        (
            "token_checksum",
            format!("{}{}", &*good, &*good),
            "was changed or cut off",
        ),
        ("token_checksum", changed, "was changed or cut off"),
        ("token_checksum", with(40, '.'), "was changed or cut off"),
        (
            "token_checksum",
            format!("hawser-join.{body}"),
            "was changed or cut off",
        ),
        (
            "token_field",
            text(Purpose::Node, &[0xff; 100]),
            "message: must be of protobuf",
        ),
    ];
    for (name, text, told) in cases {
        let error = Token::parse(&text).unwrap_err();
        let line = error.to_string();
        assert_eq!(error.name(), name, "{line}");
        assert!(line.contains(told), "{line}");
        assert!(
            line.starts_with("token: ") && !line.contains('\n'),
            "{line}"
        );
        // Not a piece of what was given.
        assert!(!line.contains(&body[10..20]), "{line}");
    }
}

#[test]
fn each_field_that_no_token_may_have_is_named() {
    let with = |change: &dyn Fn(&mut Wire)| {
        let mut wire = wire();
        change(&mut wire);
        Token::parse(&text(Purpose::Node, &wire.encode_to_vec())).unwrap_err()
    };
    for (told, change) in [
        (
            "clusterset: must be a DNS name",
            &(|w: &mut Wire| w.clusterset = "A".to_owned()) as &dyn Fn(&mut Wire),
        ),
        ("cluster: must be a DNS label", &|w| {
            w.cluster = "a.b".to_owned()
        }),
        ("name: must be a DNS name", &|w| w.name = "../x".to_owned()),
        ("hubs: must be 1 to 8", &|w| w.hubs.clear()),
        ("hubs: must be 1 to 8", &|w| {
            w.hubs = vec!["a.b:1".to_owned(); 9]
        }),
        ("hubs: must be HOST:PORT", &|w| {
            w.hubs = vec!["no port".to_owned()]
        }),
        ("hubs: must be the address of a host", &|w| {
            w.hubs = vec!["0.0.0.0:6082".to_owned()]
        }),
        ("pin: must be 32 bytes", &|w| w.pin.truncate(31)),
        ("secret: must be 32 bytes", &|w| w.secret.push(0)),
        ("secret: must be 32 bytes", &|w| w.secret.clear()),
        ("expires: must be a time", &|w| w.expires = u64::MAX),
    ] {
        let error = with(change);
        assert_eq!(error.name(), "token_field");
        assert!(error.to_string().contains(told), "{error}");
    }
    // A cluster's name is a label.
    let mut wire = wire();
    wire.name = "a.b".to_owned();
    assert!(Token::parse(&text(Purpose::Node, &wire.encode_to_vec())).is_ok());
    let error = Token::parse(&text(Purpose::Cluster, &wire.encode_to_vec())).unwrap_err();
    assert!(
        error.to_string().contains("name: must be a DNS label"),
        "{error}"
    );
}

#[test]
fn a_field_that_is_newer_is_skipped() {
    let mut message = wire().encode_to_vec();
    // Field 100, a number.
    message.extend_from_slice(&[0xa0, 0x06, 0x01]);
    assert!(Token::parse(&text(Purpose::Node, &message)).unwrap() == token(Purpose::Node));
}

#[test]
fn a_token_is_good_for_one_purpose_and_for_its_time() {
    let token = token(Purpose::Cluster);
    let error = Token::parse_for(Purpose::Node, &token.encode()).unwrap_err();
    assert_eq!(error.name(), "token_purpose");
    assert_eq!(
        error.to_string(),
        "token: is for a cluster to join; must be for a node; have one made with `hawser node-token`"
    );
    assert!(Token::parse_for(Purpose::Cluster, &token.encode()).is_ok());
    assert_eq!(token.check_time(token.expires), Ok(()));
    let late = token
        .check_time(token.expires + Duration::from_secs(5))
        .unwrap_err();
    assert_eq!(
        (late.name(), late),
        ("token_expired", TokenError::Expired { ago: 5 })
    );
}

#[test]
fn what_is_shown_has_no_secret() {
    let token = token(Purpose::Node);
    let shown = format!("{token:?} {:?}", token.secret);
    assert!(
        shown.contains("Secret(..)") && !shown.contains("7, 7"),
        "{shown}"
    );
    assert_eq!(token.secret.hash().to_string().len(), 64);
    assert!(Secret::generate().unwrap() != Secret::generate().unwrap());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Token::parse(&text);
        let _ = Token::parse(&format!("hawser-node.{text}"));
    }

    #[test]
    fn any_message_is_read_or_refused(message in prop::collection::vec(any::<u8>(), 50..300)) {
        let _ = Token::parse(&text(Purpose::Node, &message));
    }

    #[test]
    fn a_mangled_token_is_another_or_none(
        at in 0usize..300, c in prop::sample::select(b"AZaz09-_.".to_vec()), cut in 0usize..300, kind in 0..3
    ) {
        let good = token(Purpose::Cluster).encode();
        let mut bytes = good.as_bytes().to_vec();
        let at = at % bytes.len();
        match kind {
            0 => bytes[at] = c,
            1 => bytes.insert(at, c),
            _ => bytes.truncate(cut % bytes.len()),
        }
        let text = String::from_utf8(bytes).unwrap();
        if text != *good {
            prop_assert!(Token::parse(&text).is_err());
        }
    }
}
