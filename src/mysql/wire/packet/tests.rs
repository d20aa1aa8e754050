//! The decoder against payloads cut in every way.

use super::*;
use proptest::prelude::*;

fn feed(decoder: &mut PacketDecoder, bytes: &[u8], step: usize) -> Vec<Bytes> {
    let mut payloads = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut room = decoder.room();
        let (piece, later) = rest.split_at(rest.len().min(step).min(room.remaining_mut()));
        room.put_slice(piece);
        rest = later;
        while let Some(payload) = decoder.next_payload().expect("in order") {
            payloads.push(payload);
        }
    }
    payloads
}

#[test]
fn payloads_around_the_frame_limit_survive_the_trip() {
    for length in [
        0,
        1,
        LARGE - 1,
        LARGE,
        MAX_FRAME - 1,
        MAX_FRAME,
        MAX_FRAME + 1,
        2 * MAX_FRAME,
        2 * MAX_FRAME + 9,
    ] {
        let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut bytes = Vec::new();
        let next = encode(&payload, 250, &mut bytes);
        // What comes behind a large payload must not end up in it.
        let last = encode(b"behind", next, &mut bytes);
        let mut decoder = PacketDecoder::default();
        decoder.expect_sequence(250);
        let payloads = feed(&mut decoder, &bytes, 100_003);
        assert_eq!(payloads.len(), 2, "{length}");
        assert!(payloads[0] == payload, "{length}");
        assert_eq!(payloads[1], "behind", "{length}");
        assert_eq!(decoder.sequence(), last);
        assert!(!decoder.is_mid_packet());
    }
}

#[test]
fn a_large_event_is_put_together_in_memory_of_its_size() {
    let length = 3 * MAX_FRAME + 77;
    // Right, too small, and more than any event has: what is said is only a hint.
    for said in [length - 1, 5, u32::MAX as usize] {
        let mut payload = vec![7; length];
        payload[10..14].copy_from_slice(&(said as u64).to_le_bytes()[..4]);
        let mut bytes = Vec::new();
        encode(&payload, 0, &mut bytes);
        let mut decoder = PacketDecoder::default();
        decoder.expect_events(1);
        for piece in bytes.chunks(9) {
            if decoder.large.is_some() {
                break;
            }
            decoder.room().put_slice(piece);
            assert_eq!(decoder.next_payload(), Ok(None));
        }
        let set_aside = decoder.large.as_ref().map(|large| large.payload.capacity());
        if said == length - 1 {
            assert_eq!(set_aside, Some(length));
        }
        assert!(set_aside <= Some(EVENT_MAX));
        let rest = &bytes[FRAME_HEADER + decoder.waiting()..];
        let got = feed(&mut decoder, rest, 300_007);
        assert!(got.len() == 1 && got[0] == payload, "{said}");
    }
}

/// What [`feed`] gives, by pieces, and small ones that are `wanted` at once.
fn feed_pieces(
    decoder: &mut PacketDecoder,
    bytes: &[u8],
    step: usize,
    wanted: impl Fn(&[u8]) -> bool + Copy,
) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut whole = true;
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut room = decoder.room();
        let (piece, later) = rest.split_at(rest.len().min(step).min(room.remaining_mut()));
        room.put_slice(piece);
        rest = later;
        loop {
            // As rows are read: those that are here first, and some are not taken this way.
            let waiting = decoder.waiting();
            if let Some(payload) = decoder.next_small(wanted).expect("in order") {
                assert!(whole && wanted(payload));
                payloads.push(payload.to_vec());
                let taken = FRAME_HEADER + payloads[payloads.len() - 1].len();
                assert_eq!(decoder.waiting(), waiting - taken);
                continue;
            }
            let Some(piece) = decoder.next_piece().expect("in order") else {
                break;
            };
            assert_eq!(piece.first, whole);
            assert!(piece.last || !piece.first || !piece.bytes.is_empty());
            assert!(piece.bytes.len() <= BUFFER);
            if piece.first {
                payloads.push(Vec::new());
            }
            let payload: &mut Vec<u8> = payloads.last_mut().expect("it began");
            payload.extend_from_slice(&piece.bytes);
            whole = piece.last;
        }
    }
    assert!(whole && !decoder.is_mid_packet());
    payloads
}

#[test]
fn large_payloads_come_in_pieces_of_the_buffers_size() {
    for length in [
        0,
        LARGE - 1,
        LARGE,
        MAX_FRAME - 1,
        MAX_FRAME,
        2 * MAX_FRAME + 9,
    ] {
        let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        for step in [FRAME_HEADER, 100_003] {
            if step == FRAME_HEADER && length > MAX_FRAME {
                continue;
            }
            let mut bytes = Vec::new();
            let next = encode(&payload, 0, &mut bytes);
            encode(b"behind", next, &mut bytes);
            let got = feed_pieces(&mut PacketDecoder::default(), &bytes, step, |_| true);
            assert!(
                got == [payload.clone(), b"behind".to_vec()],
                "{length} by {step}"
            );
        }
    }
}

#[test]
fn a_frame_out_of_order_is_an_error() {
    let mut bytes = Vec::new();
    encode(b"x", 3, &mut bytes);
    let mut decoder = PacketDecoder::default();
    decoder.room().put_slice(&bytes);
    assert_eq!(
        decoder.next_payload(),
        Err(OutOfOrder {
            expected: 0,
            got: 3
        })
    );
}

proptest! {
    #[test]
    fn any_cut_of_the_stream_gives_the_same_payloads(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        step in 1_usize..70,
    ) {
        let mut bytes = Vec::new();
        let mut sequence = 0;
        for payload in &payloads {
            sequence = encode(payload, sequence, &mut bytes);
        }
        let got = feed(&mut PacketDecoder::default(), &bytes, step);
        prop_assert_eq!(&got, &payloads);
        // A third of them are left to the slower way.
        let wanted = |payload: &[u8]| payload.first().is_some_and(|first| first % 3 > 0);
        let got = feed_pieces(&mut PacketDecoder::default(), &bytes, step, wanted);
        prop_assert_eq!(got, payloads);
    }

    #[test]
    fn length_encoding_round_trips(value in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..70_000)) {
        let mut out = Vec::new();
        put_lenenc(value, &mut out);
        put_lenenc_bytes(&text, &mut out);
        let mut fields = Fields::new(&out);
        prop_assert_eq!(fields.lenenc(), Ok(value));
        prop_assert_eq!(fields.lenenc_bytes(), Ok(&text[..]));
        prop_assert!(fields.is_empty());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut fields = Fields::new(&bytes);
        while fields.lenenc_bytes().is_ok() && !fields.is_empty() {}
    }
}

#[test]
fn an_event_is_framed_as_its_packet_is() {
    for length in [
        0,
        1,
        MAX_FRAME - 2,
        MAX_FRAME - 1,
        MAX_FRAME,
        2 * MAX_FRAME - 1,
        2 * MAX_FRAME,
    ] {
        let event: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut expected = Vec::new();
        let next = encode(&[&[0], &event[..]].concat(), 254, &mut expected);
        let mut found = Vec::new();
        assert_eq!(encode_event(&event, 254, &mut found), next, "{length}");
        assert!(found == expected, "{length}");
        let mut frames = EventFrames::new(&event, 254);
        let mut pieces = Vec::new();
        while let Some((head, piece)) = frames.next() {
            pieces.extend_from_slice(&head);
            pieces.extend_from_slice(piece);
        }
        assert!(pieces == expected, "{length}");
        assert_eq!(frames.sequence(), next, "{length}");
    }
}
