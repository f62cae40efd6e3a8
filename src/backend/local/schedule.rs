//! Who is next: the most urgent first, and among equally urgent ones each client in turn.

use std::collections::BTreeMap;

use crate::inference::{ClientId, Priority};

/// The order of service, least first: by urgency, then by turn, then as they came.
pub(super) type Rank = (Priority, u64, u64);

/// The turns of all clients, for each priority by itself.
///
/// A client that begins an answer takes a turn, and its next one comes after it. One that comes back
/// joins at the turn that is being served: what it did not ask for meanwhile is not owed to it. So
/// however many requests a client has waiting, another's waits for one answer at most.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The turn that was begun last; never falls.
    begun: BTreeMap<Priority, u64>,
    /// Each client's next turn, where that is later than the one being served.
    next: BTreeMap<(ClientId, Priority), u64>,
}

impl Turns {
    /// The turn at which `client` would be served.
    pub fn of(&self, client: ClientId, priority: Priority) -> u64 {
        let begun = self.begun.get(&priority).copied().unwrap_or_default();
        let next = self.next.get(&(client, priority)).copied();
        next.unwrap_or_default().max(begun)
    }

    /// Takes a turn of `client`, which is the one returned.
    pub fn take(&mut self, client: ClientId, priority: Priority) -> u64 {
        let turn = self.of(client, priority);
        self.begun.insert(priority, turn);
        self.next.insert((client, priority), turn + 1);
        // Nobody is remembered for longer than it matters.
        self.next
            .retain(|(_, of), next| *of != priority || *next > turn);
        turn
    }

    /// Has `client` take one more turn without being next: for an answer that stood still, and
    /// would now go on before others.
    pub fn requeue(&mut self, client: ClientId, priority: Priority) -> u64 {
        let turn = self.of(client, priority);
        self.next.insert((client, priority), turn + 1);
        turn
    }
}

/// Who has to give up a place, when one more than there are places would wait: of `waiting` (client
/// and how urgent, in the order they came, the newest last) the index of the least urgent and newest
/// of whoever has most waiting. Of several with as many it is the one who asks. `None`: nobody has
/// more than one, and a client's only request is never refused because of others.
pub(super) fn to_give_up(waiting: &[(ClientId, Priority)]) -> Option<usize> {
    let (asking, _) = waiting.last()?;
    let mut counts: BTreeMap<ClientId, usize> = BTreeMap::new();
    for (client, _) in waiting {
        *counts.entry(*client).or_default() += 1;
    }
    let (most, count) = counts
        .into_iter()
        .max_by_key(|(client, count)| (*count, client == asking, *client))?;
    if count < 2 {
        return None;
    }
    let of_most = waiting.iter().enumerate().filter(|(_, it)| it.0 == most);
    of_most
        .max_by_key(|(index, (_, priority))| (*priority, *index))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: Priority = Priority::Inline;
    const TOOL: Priority = Priority::Tool;

    /// The order in which requests of these clients are served: each letter is a client's request,
    /// a digit serves so many of those that wait.
    fn order(script: &str) -> String {
        let mut turns = Turns::default();
        let mut waiting: Vec<(char, u64)> = Vec::new();
        let mut served = String::new();
        for (arrival, what) in (0_u64..).zip(script.chars()) {
            let Some(count) = what.to_digit(10) else {
                waiting.push((what, arrival));
                continue;
            };
            for _ in 0..count {
                let client = |letter: char| ClientId(u64::from(u32::from(letter)));
                let next = (0..waiting.len()).min_by_key(|index| {
                    let (letter, arrival) = waiting[*index];
                    (turns.of(client(letter), TOOL), arrival)
                });
                let (letter, _) = waiting.remove(next.unwrap());
                turns.take(client(letter), TOOL);
                served.push(letter);
            }
        }
        served
    }

    #[test]
    fn clients_take_turns_however_much_they_ask_for() {
        for (script, served) in [
            ("aaa3", "aaa"),
            // One who comes late waits for what is being served, and for nothing else.
            ("aaaaa1b4", "abaaa"),
            ("aaaaa3b3", "aaabaa"),
            ("aaabbb6", "ababab"),
            ("aaabcc6", "abcaca"),
            // Nobody is owed for the time in which it asked for nothing.
            ("aaaa4bbbaa5", "aaaabbaba"),
            // Nor does one get ahead of those who have waited for longer by coming back.
            ("ab1c1a2", "abca"),
        ] {
            assert_eq!(order(script), served, "{script}");
        }
    }

    #[test]
    fn priorities_have_turns_of_their_own_and_few_are_remembered() {
        let mut turns = Turns::default();
        let (a, b) = (ClientId(1), ClientId(2));
        for _ in 0..5 {
            turns.take(a, TOOL);
        }
        assert!(turns.of(a, TOOL) > turns.of(b, TOOL));
        assert_eq!(turns.of(a, INLINE), turns.of(b, INLINE));
        for client in 10..1000 {
            turns.take(ClientId(client), TOOL);
        }
        turns.take(a, TOOL);
        turns.take(a, TOOL);
        assert!(turns.next.len() <= 3, "{}", turns.next.len());
    }

    #[test]
    fn whoever_has_most_waiting_gives_up_its_newest() {
        let (a, b) = (ClientId(1), ClientId(2));
        let check = |waiting: &[(ClientId, Priority)], given_up: Option<usize>| {
            assert_eq!(to_give_up(waiting), given_up, "{waiting:?}");
        };
        check(&[(a, TOOL), (a, TOOL), (b, TOOL)], Some(1));
        // What is more urgent stays.
        check(&[(a, TOOL), (a, INLINE), (b, TOOL)], Some(0));
        // Who asks too much is refused itself.
        check(&[(b, TOOL), (a, TOOL), (a, TOOL)], Some(2));
        check(&[(a, TOOL), (a, TOOL), (b, TOOL), (b, TOOL)], Some(3));
        check(&[(a, TOOL), (b, TOOL)], None);
        check(&[], None);
    }
}
