//! Who is let in when, on a paused clock.

use tokio::task::JoinHandle;

use super::*;

const CONCURRENCY: usize = 3;

fn ask(priority: Priority) -> Ask {
    Ask {
        priority,
        concurrency: CONCURRENCY,
        claim: None,
    }
}

fn automatic(document: &str) -> Ask {
    Ask {
        claim: Some(Claim {
            document: document.into(),
            automatic: Some(Duration::from_millis(75)),
            ahead: false,
        }),
        ..ask(Priority::Inline)
    }
}

impl Admission {
    fn load(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.running, inner.waiting.len())
    }

    /// Waits to be let in, in a task of its own, and is in the queue when this returns.
    async fn queue(
        &self,
        ask: Ask,
        cancel: &CancellationToken,
    ) -> JoinHandle<Result<Place, NotAdmitted>> {
        let (admission, cancel) = (self.clone(), cancel.clone());
        let waiting = tokio::spawn(async move { admission.enter(&ask, &cancel).await });
        tokio::task::yield_now().await;
        waiting
    }
}

async fn enter(admission: &Admission, priority: Priority) -> Result<Place, NotAdmitted> {
    let cancel = CancellationToken::new();
    admission.enter(&ask(priority), &cancel).await
}

#[tokio::test(start_paused = true)]
async fn whoever_matters_more_is_let_in_first_and_then_whoever_came_first() {
    let admission = Admission::default();
    let cancel = CancellationToken::new();
    let mut places = Vec::new();
    for _ in 0..CONCURRENCY {
        places.push(enter(&admission, Priority::Inline).await.unwrap());
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (name, priority) in [
        ("background", Priority::Background),
        ("tool 1", Priority::Tool),
        ("inline 1", Priority::Inline),
        ("tool 2", Priority::Tool),
        ("inline 2", Priority::Inline),
    ] {
        let (admission, cancel, order) = (admission.clone(), cancel.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let place = admission.enter(&ask(priority), &cancel).await;
            order.lock().unwrap().push(name);
            drop(place.unwrap());
        }));
        tokio::task::yield_now().await;
    }
    assert_eq!(admission.load(), (CONCURRENCY, 5));
    drop(places);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        *order.lock().unwrap(),
        ["inline 1", "inline 2", "tool 1", "tool 2", "background"]
    );
    assert_eq!(admission.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn tools_leave_a_place_for_the_person_at_the_cursor() {
    let admission = Admission::default();
    let cancel = CancellationToken::new();
    let mut places = Vec::new();
    for _ in 0..CONCURRENCY - 1 {
        places.push(enter(&admission, Priority::Tool).await.unwrap());
    }
    let tool = admission.queue(ask(Priority::Tool), &cancel).await;
    assert_eq!(admission.load(), (CONCURRENCY - 1, 1));
    let inline = enter(&admission, Priority::Inline).await.unwrap();
    drop(inline);
    assert!(!tool.is_finished());
    places.pop();
    assert!(tool.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_so_and_gives_way_to_whoever_matters_more() {
    let admission = Admission::default();
    let cancel = CancellationToken::new();
    let mut places = Vec::new();
    for _ in 0..CONCURRENCY {
        places.push(enter(&admission, Priority::Inline).await.unwrap());
    }
    let mut waiting = Vec::new();
    for _ in 0..QUEUE {
        waiting.push(admission.queue(ask(Priority::Tool), &cancel).await);
    }
    let refused = enter(&admission, Priority::Tool).await;
    assert_eq!(refused.err(), Some(NotAdmitted::Busy));
    let inline = admission.queue(ask(Priority::Inline), &cancel).await;
    let last = waiting.pop().unwrap();
    assert_eq!(last.await.unwrap().err(), Some(NotAdmitted::Busy));
    assert_eq!(admission.load(), (CONCURRENCY, QUEUE));
    places.pop();
    assert!(inline.await.unwrap().is_ok());
    for waiting in waiting {
        waiting.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_while_waiting_leaves_no_trace() {
    let admission = Admission::default();
    let mut places = Vec::new();
    for _ in 0..CONCURRENCY {
        places.push(enter(&admission, Priority::Inline).await.unwrap());
    }
    let cancel = CancellationToken::new();
    let cancelled = admission.queue(ask(Priority::Inline), &cancel).await;
    let never = CancellationToken::new();
    let dropped = admission.queue(ask(Priority::Inline), &never).await;
    assert_eq!(admission.load(), (CONCURRENCY, 2));
    cancel.cancel();
    dropped.abort();
    assert_eq!(cancelled.await.unwrap().err(), Some(NotAdmitted::Cancelled));
    assert!(dropped.await.is_err());
    assert_eq!(admission.load(), (CONCURRENCY, 0));
    drop(places);
    assert_eq!(admission.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_somebody_who_just_left_is_given_on() {
    let admission = Admission::default();
    let mut places = Vec::new();
    for _ in 0..CONCURRENCY {
        places.push(enter(&admission, Priority::Inline).await.unwrap());
    }
    let never = CancellationToken::new();
    let gone = admission.queue(ask(Priority::Inline), &never).await;
    let next = admission.queue(ask(Priority::Inline), &never).await;
    // Granted and dropped before the task could run again.
    places.pop();
    gone.abort();
    drop(gone.await);
    assert!(next.await.unwrap().is_ok());
    drop(places);
    assert_eq!(admission.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_latest_for_a_document_wins_and_other_documents_do_not_mind() {
    let admission = Admission::default();
    let arrive = |ask: &Ask| {
        let cancel = CancellationToken::new();
        let standing = admission.arrive(ask, &cancel);
        (cancel, standing)
    };
    let (first, first_standing) = arrive(&automatic("a"));
    let (other, other_standing) = arrive(&automatic("b"));
    let (second, second_standing) = arrive(&automatic("a"));
    assert!(first.is_cancelled() && first_standing.is_superseded());
    assert!(!other.is_cancelled() && !second.is_cancelled());
    // The older one's end does not end the newer one's standing.
    drop(first_standing);
    let invoked = Ask {
        claim: Some(Claim {
            document: "a".into(),
            automatic: None,
            ahead: false,
        }),
        ..ask(Priority::Inline)
    };
    let (by_hand, by_hand_standing) = arrive(&invoked);
    assert!(second.is_cancelled() && second_standing.is_superseded());
    let (_third, _third_standing) = arrive(&automatic("a"));
    assert!(!by_hand.is_cancelled() && !by_hand_standing.is_superseded());
    drop(other_standing);
    assert_eq!(admission.lock().latest.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn automatic_requests_rest_first_and_others_do_not() {
    let admission = Admission::default();
    let started = tokio::time::Instant::now();
    let cancel = CancellationToken::new();
    let place = admission.enter(&automatic("a"), &cancel).await;
    assert!(place.is_ok());
    assert_eq!(started.elapsed(), Duration::from_millis(75));
    let _invoked = enter(&admission, Priority::Inline).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(75));
    cancel.cancel();
    let cancelled = admission.enter(&automatic("a"), &cancel).await;
    assert_eq!(cancelled.err(), Some(NotAdmitted::Cancelled));
    assert_eq!(started.elapsed(), Duration::from_millis(75));
}

#[tokio::test(start_paused = true)]
async fn what_is_begun_ahead_of_need_gives_way_to_whatever_is_needed() {
    let admission = Admission::default();
    let ahead = || {
        let mut ask = automatic("a");
        ask.priority = Priority::Background;
        ask.claim.as_mut().unwrap().ahead = true;
        ask
    };
    let arrive = |ask: &Ask| {
        let cancel = CancellationToken::new();
        let standing = admission.arrive(ask, &cancel);
        (cancel, standing)
    };
    let (first, _first_standing) = arrive(&ahead());
    let (second, second_standing) = arrive(&ahead());
    assert!(first.is_cancelled() && !second.is_cancelled());
    // An answer that was there already needs nobody's place.
    admission.displace("a");
    assert!(!second.is_cancelled());
    let (needed, needed_standing) = arrive(&automatic("a"));
    assert!(second.is_cancelled() && second_standing.is_superseded());
    let (late, late_standing) = arrive(&ahead());
    assert!(late.is_cancelled() && late_standing.is_superseded());
    assert!(!needed.is_cancelled());
    // Its end does not end the standing of the one that went before.
    drop(late_standing);
    admission.displace("a");
    assert!(needed.is_cancelled() && needed_standing.is_superseded());
    assert!(admission.lock().latest.is_empty());
}
