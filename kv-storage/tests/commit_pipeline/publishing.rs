//! The last step: writes become visible.

use crate::SCHEDULES;
use crate::publisher::Publisher;
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// Writers take numbers in turn, as under the front's lock, and publish when the scheduler lets them.
fn writers_publish() {
    let publisher = Arc::new(Publisher::new(10));
    let next = Arc::new(Mutex::new(11));
    let linked = Arc::new(Mutex::new(Vec::new()));
    let writer = |writes: u64, size: u64| {
        let (publisher, next, linked) = (publisher.clone(), next.clone(), linked.clone());
        move || {
            for _ in 0..writes {
                let first = {
                    let mut next = next.lock().unwrap();
                    *next += size;
                    *next - size
                };
                let last = first + size - 1;
                publisher.publish(first, last, || {
                    assert_eq!(publisher.visible(), first - 1, "linked out of turn");
                    linked.lock().unwrap().push(first);
                });
                assert!(
                    publisher.visible() >= last,
                    "a write is visible when it returns"
                );
            }
        }
    };
    let threads = [writer(2, 1), writer(1, 3), writer(2, 2)].map(thread::spawn);
    let reader = {
        let (publisher, linked) = (publisher.clone(), linked.clone());
        thread::spawn(move || {
            publisher.wait_for(14);
            let seen = publisher.visible();
            let linked = linked.lock().unwrap();
            assert!(seen >= 14 && linked.iter().any(|first| *first > 11));
        })
    };
    for thread in threads {
        thread.join().unwrap();
    }
    reader.join().unwrap();
    assert_eq!(publisher.visible(), 19);
    assert!(linked.lock().unwrap().is_sorted());
}

#[test]
fn writes_become_visible_in_the_order_of_their_numbers_and_nobody_sleeps_for_ever() {
    shuttle::check_random(writers_publish, SCHEDULES);
    shuttle::check_pct(writers_publish, SCHEDULES, 3);
}
