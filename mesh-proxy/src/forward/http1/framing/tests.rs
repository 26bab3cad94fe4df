use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderBlock {
    let mut block = HeaderBlock::default();
    for (name, value) in lines {
        block.push(name.as_bytes(), value.as_bytes());
    }
    block
}

/// Decodes `input` fed in pieces that end at `cuts`.
fn decode(framing: Framing, input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool, usize), FramingError> {
    let mut decoder = BodyDecoder::new(framing);
    let mut buffer = BytesMut::new();
    let mut body = Vec::new();
    let mut fed = 0;
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    for cut in cuts {
        buffer.extend_from_slice(&input[fed..cut]);
        fed = cut;
        loop {
            match decoder.advance(&mut buffer)? {
                Piece::Data(length) => body.extend_from_slice(&buffer.split_to(length)),
                Piece::NeedMore => break,
                Piece::End => break,
            }
        }
    }
    Ok((body, decoder.is_done(), buffer.len()))
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    use FramingError::*;
    let cases: [(&[(&str, &str)], FramingError); 12] = [
        (&[("Content-Length", "5"), ("Transfer-Encoding", "chunked")], LengthAndCoding),
        (&[("Content-Length", "5"), ("content-length", "5")], RepeatedLength),
        (&[("Content-Length", "5"), ("content-length", "6")], RepeatedLength),
        (&[("Content-Length", "5, 5")], RepeatedLength),
        (&[("Content-Length", "+5")], InvalidLength),
        (&[("Content-Length", "-1")], InvalidLength),
        (&[("Content-Length", "0x5")], InvalidLength),
        (&[("Content-Length", "")], InvalidLength),
        (&[("Content-Length", "99999999999999999999")], InvalidLength),
        (&[("Transfer-Encoding", "gzip, chunked")], UnknownCoding),
        (&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], UnknownCoding),
        (&[("Transfer-Encoding", "\u{b}chunked")], UnknownCoding),
    ];
    for (lines, expected) in cases {
        assert_eq!(stated(&headers(lines), Version::Http11), Err(expected), "{lines:?}");
    }
    let old = stated(&headers(&[("Transfer-Encoding", "chunked")]), Version::Http10);
    assert_eq!(old, Err(CodingInOldVersion));
}

#[test]
fn plain_framing_is_taken() {
    assert_eq!(stated(&headers(&[]), Version::Http11), Ok(None));
    assert_eq!(stated(&headers(&[("content-length", "17")]), Version::Http10), Ok(Some(Framing::Length(17))));
    let chunked = stated(&headers(&[("transfer-encoding", "Chunked")]), Version::Http11);
    assert_eq!(chunked, Ok(Some(Framing::Chunked)));
}

#[test]
fn chunks_are_decoded_and_what_follows_is_left() {
    let input = b"5\r\nhello\r\n6;ext=\"a\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1";
    let (body, done, left) = decode(Framing::Chunked, input, &[]).expect("valid");
    assert_eq!((body.as_slice(), done, left), (&b"hello world"[..], true, 14));
}

#[test]
fn broken_chunks_are_refused() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(400));
    let cases: [&[u8]; 11] = [
        b"\r\nhello",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello",
        b"0\r\nbad trailer: 1\r\n\r\n",
        long.as_bytes(),
    ];
    for case in cases {
        assert!(decode(Framing::Chunked, case, &[]).is_err(), "{:?}", String::from_utf8_lossy(case));
    }
}

#[test]
fn trailers_that_would_speak_for_the_head_are_left_out() {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut buffer = BytesMut::from(&b"0\r\nContent-Length: 9\r\nHost: evil\r\ngrpc-status: 0\r\n\r\n"[..]);
    assert_eq!(decoder.advance(&mut buffer), Ok(Piece::End));
    let names: Vec<_> = decoder.trailers().iter().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"grpc-status".to_vec()]);
}

proptest! {
    #[test]
    fn the_same_bytes_in_any_split_decode_alike(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut input = Vec::new();
        for piece in &pieces {
            write_chunk_start(&mut input, piece.len());
            input.extend_from_slice(piece);
            input.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut input, &HeaderBlock::default());
        let (body, done, left) = decode(Framing::Chunked, &input, &cuts).expect("valid");
        prop_assert_eq!(body, pieces.concat());
        prop_assert!(done);
        prop_assert_eq!(left, 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_every_split_agrees(
        input in prop::collection::vec(prop::sample::select(&b"0123aF;\r\n x:"[..]), 0..80),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let whole = decode(Framing::Chunked, &input, &[]);
        let split = decode(Framing::Chunked, &input, &cuts);
        prop_assert_eq!(whole.is_ok(), split.is_ok());
        if let (Ok(whole), Ok(split)) = (whole, split) {
            prop_assert_eq!(whole, split);
        }
    }
}
