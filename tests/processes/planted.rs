//! The program that ships holds none of the bugs that are planted for the simulated days.

use kv_tests::processes::kv_node;
use kv_tests::swarm::planted::{FOUND_BY_TESTS, PLANTED};

#[test]
fn the_program_holds_no_planted_bug() {
    let program = std::fs::read(kv_node()).expect("it was built");
    let holds = |text: &str| {
        program
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(
        holds("takes no more writes since"),
        "texts are found where they are"
    );
    for name in PLANTED.iter().chain(FOUND_BY_TESTS) {
        assert!(!holds(name), "kv-node holds the planted bug \"{name}\"");
    }
}
