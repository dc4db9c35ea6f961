use super::*;

fn decode(
    stored: &[u8],
    raw_len: usize,
    dictionary: Option<&Dictionary>,
) -> Result<Vec<u8>, &'static str> {
    let mut memory = vec![9; 100];
    super::decode(stored, raw_len, dictionary, &mut memory).map(<[u8]>::to_vec)
}

const ALL: [(Compression, Codec); 3] = [
    (Compression::None, Codec::None),
    (Compression::Lz4, Codec::Lz4),
    (Compression::Zstd(1), Codec::Zstd),
];

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

#[test]
fn compressible_blocks_shrink_and_random_ones_are_stored_as_they_are() {
    for (compression, codec) in ALL {
        for (raw, codec) in [(vec![7; 4096], codec), (noise(4096), Codec::None)] {
            let mut stored = Vec::new();
            let mut encoder = Encoder::new(compression);
            encoder.encode(&noise(9000), &mut Vec::new());
            encoder.encode(&raw, &mut stored);
            assert_eq!(stored[0], codec as u8);
            assert_eq!(decode(&stored, raw.len(), None).unwrap(), raw);
            assert!(decode(&stored, raw.len() + 1, None).is_err());
            assert!(decode(&stored, raw.len() - 1, None).is_err());
        }
    }
    assert!(decode(&[9, 0], 1, None).is_err(), "unknown codec");
    assert!(decode(&[], 0, None).is_err());
}

#[test]
fn blocks_that_resemble_each_other_gain_from_a_dictionary_and_need_it_again() {
    let blocks: Vec<Vec<u8>> = (0..400)
        .map(|number| {
            let rows = (0..4).map(|row| {
                format!(
                    "{{\"id\":{},\"name\":\"user-{number}\",\"address\":{{\"city\":\"c{row}\"}}}}",
                    number * row
                )
            });
            rows.collect::<String>().into_bytes()
        })
        .collect();
    let sizes: Vec<usize> = blocks.iter().map(Vec::len).collect();
    let trained = Trained::train(&blocks.concat(), &sizes, 1).expect("such rows gain");
    let dictionary = Dictionary::load(&trained.bytes).unwrap();
    let mut encoder = Encoder::new(Compression::ZstdDictionary(1));
    encoder.set_dictionary(trained);
    let mut stored = Vec::new();
    encoder.encode(&blocks[7], &mut stored);
    assert_eq!(stored[0], Codec::ZstdDictionary as u8);
    assert!(stored.len() < blocks[7].len() / 3, "{}", stored.len());
    let raw_len = blocks[7].len();
    assert_eq!(
        decode(&stored, raw_len, Some(&dictionary)).unwrap(),
        blocks[7]
    );
    assert!(decode(&stored, raw_len, None).is_err());
}

#[test]
fn random_blocks_get_no_dictionary() {
    let samples = noise(200 << 10);
    assert!(Trained::train(&samples, &[2048; 100], 1).is_none());
}
