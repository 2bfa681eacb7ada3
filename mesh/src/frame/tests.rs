use super::*;
use proptest::prelude::*;
use std::io::Write as _;

fn frames(decoder: &mut Decoder) -> Result<Vec<Bytes>, FrameError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.poll_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn a_frame_is_a_length_a_form_and_the_message() {
    let frame = encode(Stream::Changes, b"abc").unwrap();
    assert_eq!(frame[..], [0, 0, 0, 4, 0, b'a', b'b', b'c']);
    let repetitive = vec![7; 20_000];
    let packed = encode(Stream::Bulk, &repetitive).unwrap();
    assert!(packed.len() < 100);
    assert_eq!(packed[4], ZSTD);
    let plain = encode(Stream::Changes, &repetitive).unwrap();
    assert_eq!(plain.len(), 20_005);
    let mut decoder = Decoder::default();
    decoder.handle_bytes(&packed);
    decoder.handle_bytes(&plain);
    assert_eq!(frames(&mut decoder), Ok(vec![repetitive.clone().into(); 2]));
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn what_cannot_be_compressed_travels_as_it_is() {
    let mut noise = Vec::new();
    let mut state = 1u64;
    while noise.len() < 40_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes()[..4]);
    }
    let frame = encode(Stream::Bulk, &noise).unwrap();
    assert_eq!((frame.len(), frame[4]), (noise.len() + 5, PLAIN));
}

#[test]
fn the_longest_message_fits_and_one_byte_more_does_not() {
    let longest = vec![0; MAX_MESSAGE];
    for stream in Stream::ALL {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&encode(stream, &longest).unwrap());
        assert_eq!(decoder.poll_frame().unwrap().unwrap().len(), MAX_MESSAGE);
    }
    let longer = vec![0; MAX_MESSAGE + 1];
    assert_eq!(encode(Stream::Bulk, &longer), Err(FrameError::TooLong));
}

#[test]
fn a_length_alone_takes_no_room() {
    let mut decoder = Decoder::default();
    decoder.handle_bytes(&u32::try_from(LONGEST).unwrap().to_be_bytes());
    assert_eq!(decoder.poll_frame(), Ok(None));
    assert!(decoder.bytes.capacity() < 1024);
    assert_eq!(decoder.finish(), Err(FrameError::Truncated));
}

#[test]
fn a_compressed_frame_says_its_size_and_keeps_to_it() {
    let refused = |body: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&u32::try_from(1 + body.len()).unwrap().to_be_bytes());
        decoder.handle_bytes(&[ZSTD]);
        decoder.handle_bytes(body);
        decoder.poll_frame().unwrap_err()
    };
    let bomb = zstd::bulk::compress(&vec![0; MAX_MESSAGE + 1], 3).unwrap();
    assert_eq!(refused(&bomb), FrameError::TooLong);
    // A stream does not know its size when it begins.
    let mut unsized_frame = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    for _ in 0..2 {
        unsized_frame.write_all(&[0; 10_000]).unwrap();
        unsized_frame.flush().unwrap();
    }
    let unsized_frame = unsized_frame.finish().unwrap();
    assert_eq!(refused(&unsized_frame), FrameError::Compression);
    let whole = zstd::bulk::compress(&[0; 20_000], 3).unwrap();
    assert_eq!(refused(&whole[..whole.len() - 1]), FrameError::Compression);
    assert_eq!(
        refused(&[&whole[..], &whole].concat()),
        FrameError::Compression
    );
    assert_eq!(refused(b""), FrameError::Compression);
}

#[test]
fn a_stream_is_known_by_its_first_frame() {
    for stream in Stream::ALL {
        assert_eq!(Stream::of_opening(stream.name().as_bytes()), Ok(stream));
    }
    for other in [&b""[..], b"bul", b"bulk ", b"Changes"] {
        assert_eq!(Stream::of_opening(other), Err(FrameError::Opening));
    }
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_whatever_the_pieces(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..18_000), 0..4),
        piece in 1usize..5000,
        bulk: bool,
    ) {
        let stream = if bulk { Stream::Bulk } else { Stream::Changes };
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.extend_from_slice(&encode(stream, message).unwrap());
        }
        let mut decoder = Decoder::default();
        let mut came = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.handle_bytes(piece);
            came.extend(frames(&mut decoder).unwrap());
        }
        prop_assert_eq!(came, messages);
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn any_bytes_are_frames_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0u8..3) {
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&bytes);
        let _ = frames(&mut decoder);
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&u32::try_from(bytes.len() + 1).unwrap().to_be_bytes());
        decoder.handle_bytes(&[form]);
        decoder.handle_bytes(&bytes);
        let _ = frames(&mut decoder);
    }
}
