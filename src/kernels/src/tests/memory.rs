//! Parts of one allocation, before and after it was moved.

use crate::memory::Memory;

#[test]
fn parts_lie_on_cache_lines_and_stay_as_they_are_in_large_pages() {
    let lengths = [3 << 20, 100, 0, 64, 5 << 20];
    let mut memory = Memory::of(lengths);
    let mut parts = lengths.map(|length| memory.part(length));
    for (number, part) in parts.iter_mut().enumerate() {
        assert!(part.iter().all(|byte| *byte == 0));
        assert!(part.as_ptr().addr().is_multiple_of(64));
        for (at, byte) in part.iter_mut().enumerate() {
            *byte = (at * 7 + number) as u8;
        }
    }
    let mut pages = memory.into_large_pages();
    let mut steps = 1;
    while pages.step() {
        steps += 1;
        assert!(steps <= 4, "more pages than there are");
    }
    assert!(!pages.step(), "it was done");
    drop(pages);
    for (number, (part, length)) in parts.iter().zip(lengths).enumerate() {
        assert_eq!(part.len(), length);
        let as_written = |(at, byte): (usize, &u8)| *byte == (at * 7 + number) as u8;
        assert!(part.iter().enumerate().all(as_written));
    }
}

#[test]
#[should_panic(expected = "more than there is room for")]
fn more_than_there_is_room_for_is_refused() {
    Memory::of([100]).part(200);
}
