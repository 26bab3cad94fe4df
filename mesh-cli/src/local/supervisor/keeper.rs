//! Keeps one process running: starts it, waits for its end, and starts it again after a pause.
//!
//! What is special about control plane, proxy and application is their [`Charge`]; when they are started
//! again, how long the pauses are, and how they are stopped is the same for all and stands here.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::board::Subject;
use super::context::Context;
use super::process::{Exit, Process, StartError};
use crate::local::client::Phase;
use crate::local::mesh_file::RestartPolicy;
use crate::output;

/// First pause before a process is started again.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A process that ran for so long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(10);
/// Orders that may wait. Each is obeyed within a moment.
const ORDERS_MAX: usize = 4;

/// What is kept running.
pub(crate) trait Charge: 'static {
    /// Whose state is told.
    fn subject(&self) -> Subject;

    /// When it is started again.
    fn restart(&self) -> RestartPolicy;

    /// What happens after it could not be started.
    fn refusal(&self) -> Refusal;

    /// Time to end in an orderly way.
    fn grace(&self) -> Duration;

    /// Prepares everything and starts it. Dropped when it is to be stopped meanwhile.
    fn start(&self) -> impl Future<Output = Result<Process, StartError>>;

    /// It runs and is about to be ended in order to be started again. Dropped when it ends before.
    fn before_restart(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// Says how it is doing for as long as it runs. Dropped when it ends.
    fn attend(&self) -> impl Future<Output = ()>;

    /// It has ended, whatever the reason.
    fn ended(&self);
}

/// What happens after a process could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is tried again: what is missing may come.
    TryAgain,
    /// It stays so until somebody orders otherwise: a command that is not there does not come by waiting.
    GiveUp,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Restart,
    Stop,
}

/// A process that is kept running. Dropping this leaves it running until the mesh ends.
#[derive(Debug)]
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
    task: RefCell<Option<JoinHandle<()>>>,
}

/// Why the wait of a keeper was over.
enum Turn {
    Again,
    Stop,
}

impl Keeper {
    /// Starts and keeps a process.
    pub(crate) fn new(context: Rc<Context>, charge: impl Charge) -> Self {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let task = tokio::task::spawn_local(keep(context, charge, receiver));
        Self { orders, task: RefCell::new(Some(task)) }
    }

    /// Ends the process and starts it again at once.
    pub(crate) fn restart(&self) {
        // A full queue holds a restart already; a closed one has stopped.
        let _ordered_before = self.orders.try_send(Order::Restart);
    }

    /// Ends the process and waits until it has ended.
    pub(crate) async fn stop(&self) {
        let _stopped_before = self.orders.send(Order::Stop).await;
        let Some(task) = self.task.take() else { return };
        if let Err(error) = task.await {
            output::note(&format!("a keeper ended early: {error}"));
        }
    }
}

/// Pauses between starts.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    /// The pause after a process that ran for `ran`.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= WELL_AFTER {
            self.0 = PAUSE_MIN;
        }
        let pause = self.0;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        pause
    }
}

/// What is next after a process ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Settle(Phase),
}

fn next(policy: RestartPolicy, exit: Exit) -> Next {
    match (policy, exit) {
        (RestartPolicy::Always, _) => Next::Again,
        (RestartPolicy::OnFailure | RestartPolicy::No, Exit::Status(0)) => Next::Settle(Phase::Completed),
        (RestartPolicy::OnFailure, Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) => Next::Again,
        (RestartPolicy::No, Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) => Next::Settle(Phase::Failed),
    }
}

/// How a run of the process came to its end.
enum Run {
    Refused(StartError),
    Ended(Exit, Duration),
    Ordered(Order),
}

async fn keep(context: Rc<Context>, charge: impl Charge, mut orders: mpsc::Receiver<Order>) {
    let subject = charge.subject();
    let mut backoff = Backoff(PAUSE_MIN);
    loop {
        let run = once(&context, &charge, &mut orders).await;
        charge.ended();
        let turn = match run {
            Run::Ordered(Order::Restart) => Turn::Again,
            Run::Ordered(Order::Stop) => Turn::Stop,
            Run::Refused(error) => {
                let text = output::chain(&error);
                output::note(&format!("{subject}: {text}"));
                match charge.refusal() {
                    Refusal::GiveUp => settled(&context, &subject, Phase::Failed, text, &mut orders).await,
                    Refusal::TryAgain => {
                        let pause = backoff.after(Duration::ZERO);
                        paused(&context, &subject, pause, text, &mut orders).await
                    }
                }
            }
            Run::Ended(exit, ran) => {
                output::note(&format!("{subject} {exit}"));
                match next(charge.restart(), exit) {
                    Next::Again => {
                        let pause = backoff.after(ran);
                        paused(&context, &subject, pause, exit.to_string(), &mut orders).await
                    }
                    Next::Settle(phase) => {
                        let why = if phase == Phase::Completed { String::new() } else { exit.to_string() };
                        settled(&context, &subject, phase, why, &mut orders).await
                    }
                }
            }
        };
        match turn {
            Turn::Again => context.board.update(&subject, |status| {
                status.restarts += 1;
                status.phase = Phase::Pending;
                status.pid = None;
            }),
            Turn::Stop => break,
        }
    }
    context.board.update(&subject, |status| {
        status.phase = Phase::Stopped;
        status.pid = None;
        status.message.clear();
    });
}

/// Starts the process and waits for its end or an order.
async fn once(context: &Context, charge: &impl Charge, orders: &mut mpsc::Receiver<Order>) -> Run {
    let subject = charge.subject();
    let started = tokio::select! {
        biased;
        order = orders.recv() => return Run::Ordered(order.unwrap_or(Order::Stop)),
        started = charge.start() => started,
    };
    let mut process = match started {
        Ok(process) => process,
        Err(error) => return Run::Refused(error),
    };
    let begun = Instant::now();
    context.board.update(&subject, |status| {
        status.phase = Phase::Starting;
        status.pid = Some(process.pid());
        status.message.clear();
    });
    let attended = async {
        charge.attend().await;
        std::future::pending::<()>().await;
    };
    let order = tokio::select! {
        biased;
        exit = process.end() => return Run::Ended(exit, begun.elapsed()),
        order = orders.recv() => order.unwrap_or(Order::Stop),
        () = attended => Order::Stop,
    };
    match order {
        Order::Restart => tokio::select! {
            biased;
            _ended_first = process.end() => {}
            () = charge.before_restart() => {}
        },
        Order::Stop => {}
    }
    process.stop(charge.grace()).await;
    Run::Ordered(order)
}

/// Waits before the next start.
async fn paused(
    context: &Context,
    subject: &Subject,
    pause: Duration,
    why: String,
    orders: &mut mpsc::Receiver<Order>,
) -> Turn {
    context.board.update(subject, |status| {
        status.phase = Phase::Waiting;
        status.pid = None;
        status.message = why;
    });
    tokio::select! {
        biased;
        order = orders.recv() => turn(order),
        () = tokio::time::sleep(pause) => Turn::Again,
    }
}

/// Waits for somebody who wants it otherwise.
async fn settled(
    context: &Context,
    subject: &Subject,
    phase: Phase,
    why: String,
    orders: &mut mpsc::Receiver<Order>,
) -> Turn {
    context.board.update(subject, |status| {
        status.phase = phase;
        status.pid = None;
        status.message = why;
    });
    turn(orders.recv().await)
}

fn turn(order: Option<Order>) -> Turn {
    match order {
        Some(Order::Restart) => Turn::Again,
        Some(Order::Stop) | None => Turn::Stop,
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_a_long_run_resets_them() {
        let mut backoff = Backoff(PAUSE_MIN);
        let pauses: Vec<u128> = (0..8).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(WELL_AFTER), PAUSE_MIN);
        assert_eq!(backoff.after(Duration::from_secs(1)), PAUSE_MIN * 2);
    }

    #[test]
    fn a_process_is_started_again_as_its_policy_says() {
        let killed = Exit::Signal(Signal::SIGKILL);
        for (policy, exit, expected) in [
            (RestartPolicy::Always, Exit::Status(0), Next::Again),
            (RestartPolicy::Always, killed, Next::Again),
            (RestartPolicy::OnFailure, Exit::Status(0), Next::Settle(Phase::Completed)),
            (RestartPolicy::OnFailure, Exit::Status(1), Next::Again),
            (RestartPolicy::OnFailure, killed, Next::Again),
            (RestartPolicy::OnFailure, Exit::Unknown, Next::Again),
            (RestartPolicy::No, Exit::Status(0), Next::Settle(Phase::Completed)),
            (RestartPolicy::No, Exit::Status(7), Next::Settle(Phase::Failed)),
            (RestartPolicy::No, killed, Next::Settle(Phase::Failed)),
        ] {
            assert_eq!(next(policy, exit), expected, "{policy:?} {exit}");
        }
    }
}
