//! Tickets: what a browser puts in the URL of a socket or a stream in the place of its token.
//!
//! A ticket is used once, lives for [`TICKET_TTL`], and is worth what the token was that made it.
//! Only its digest is kept, so that neither a look-up's time nor a copy of this memory tells one.
//!
//! Bounds: [`TICKETS_PER_USER_MAX`] of one user and [`TICKETS_MAX`] in all.

use super::{
    State,
    extract::{Caller, authenticate},
    problem::{Code, Problem},
    stats::document,
};
use crate::{
    auth::{AuthError, Principal},
    task::{UserId, time},
};
use aws_lc_rs::{digest, rand};
use axum::{
    body::Body,
    extract::State as AxumState,
    http::{HeaderMap, Response, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a ticket may be used.
const TICKET_TTL: Duration = Duration::from_secs(30);

/// Most unused tickets of one user.
const TICKETS_PER_USER_MAX: usize = 100;

/// Most unused tickets in all.
const TICKETS_MAX: usize = 20_000;

/// Random bytes of a ticket.
const TICKET_BYTES: usize = 32;

type Hash = [u8; 32];

/// `POST /api/ws-tickets`
pub(super) async fn create(
    AxumState(state): AxumState<Arc<State>>,
    Caller(caller): Caller,
) -> Result<Response<Body>, Problem> {
    let lives_ms = i64::try_from(TICKET_TTL.as_millis()).unwrap_or(0);
    let at_ms = state.parts.clock.now_ms().saturating_add(lives_ms);
    let expires_at_ms =
        caller.expires_at_ms.map_or(at_ms, |expires_at_ms| expires_at_ms.min(at_ms));
    let ticket = state.tickets.issue(caller, Instant::now())?;
    let body = json!({ "ticket": ticket, "expires_at": time::to_text(expires_at_ms) });
    Ok(document(StatusCode::CREATED, &body))
}

/// What a query says about who asks.
#[derive(Default)]
pub(super) struct QueryCredentials<'a> {
    pub(super) ticket: Option<&'a str>,
    pub(super) token: Option<&'a str>,
    /// Development mode.
    pub(super) user: Option<&'a str>,
}

/// Who a request is of: the `Authorization` header, else the query's ticket, else its token.
pub(super) fn admit(
    state: &State,
    headers: &HeaderMap,
    query: &QueryCredentials<'_>,
) -> Result<Principal, Problem> {
    let Some(ticket) = query.ticket.filter(|_| !headers.contains_key(header::AUTHORIZATION)) else {
        return authenticate(state, headers, query.token, query.user);
    };
    let principal = state.tickets.redeem(ticket, Instant::now());
    let principal = principal.ok_or(AuthError::Invalid("ticket"))?;
    let now_ms = state.parts.clock.now_ms();
    if principal.expires_at_ms.is_some_and(|expires_at_ms| expires_at_ms <= now_ms) {
        return Err(AuthError::Expired.into());
    }
    state.usage.count_user(&principal.user_id).map_err(Problem::rate_limited)?;
    Ok(principal)
}

/// All unused tickets.
#[derive(Default)]
pub(super) struct Tickets(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// By the digest of the ticket.
    tickets: HashMap<Hash, Ticket>,
    /// By number, so in the order in which they expire.
    order: BTreeMap<u64, Hash>,
    of_user: HashMap<UserId, usize>,
    next_number: u64,
}

struct Ticket {
    principal: Principal,
    number: u64,
    until: Instant,
}

impl Tickets {
    /// A new ticket for a principal.
    fn issue(&self, principal: Principal, now: Instant) -> Result<String, Problem> {
        let mut bytes = [0; TICKET_BYTES];
        rand::fill(&mut bytes).map_err(|_| Problem::new(Code::Internal))?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let mut table = self.table();
        table.forget_expired(now);
        let of_user = table.of_user.get(&principal.user_id).copied().unwrap_or(0);
        if of_user >= TICKETS_PER_USER_MAX || table.tickets.len() >= TICKETS_MAX {
            return Err(Problem::new(Code::TooManyTickets));
        }
        table.put(hash(&text), principal, now + TICKET_TTL);
        Ok(text)
    }

    /// Takes a ticket: it is gone after this, whatever comes of it.
    fn redeem(&self, text: &str, now: Instant) -> Option<Principal> {
        let mut table = self.table();
        table.forget_expired(now);
        table.remove(&hash(text)).map(|ticket| ticket.principal)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn put(&mut self, hash: Hash, principal: Principal, until: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        *self.of_user.entry(principal.user_id.clone()).or_default() += 1;
        self.order.insert(number, hash);
        self.tickets.insert(hash, Ticket { principal, number, until });
    }

    fn remove(&mut self, hash: &Hash) -> Option<Ticket> {
        let ticket = self.tickets.remove(hash)?;
        self.order.remove(&ticket.number);
        let user_id = &ticket.principal.user_id;
        if let Some(count) = self.of_user.get_mut(user_id) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(user_id);
            }
        }
        Some(ticket)
    }

    fn forget_expired(&mut self, now: Instant) {
        while let Some((_, oldest)) = self.order.first_key_value() {
            let oldest = *oldest;
            if self.tickets.get(&oldest).is_some_and(|ticket| now < ticket.until) {
                return;
            }
            self.remove(&oldest);
        }
    }
}

fn hash(text: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    hash
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(user: &str) -> Principal {
        let user_id = UserId::new(user).unwrap();
        Principal { user_id, is_admin: false, expires_at_ms: Some(7) }
    }

    #[test]
    fn a_ticket_is_used_once_and_in_time() {
        let (tickets, start) = (Tickets::default(), Instant::now());
        let [first, second] = [(); 2].map(|()| tickets.issue(principal("ada"), start).unwrap());
        assert_ne!(first, second);
        assert_eq!(tickets.redeem("nonsense", start), None);
        assert_eq!(tickets.redeem(&first, start), Some(principal("ada")));
        assert_eq!(tickets.redeem(&first, start), None, "once");
        let late = start + TICKET_TTL;
        assert_eq!(tickets.redeem(&second, late), None, "in time");
        let third = tickets.issue(principal("ada"), late).unwrap();
        let just = late + TICKET_TTL - Duration::from_millis(1);
        assert!(tickets.redeem(&third, just).is_some());
        let table = tickets.table();
        assert!(table.tickets.is_empty() && table.order.is_empty() && table.of_user.is_empty());
    }

    #[test]
    fn tickets_are_bounded_per_user_and_in_all() {
        let (tickets, start) = (Tickets::default(), Instant::now());
        let issue = |user: &str, now| {
            tickets.issue(principal(user), now).map_err(|problem| problem.code().as_str())
        };
        let first = issue("ada", start).unwrap();
        for _ in 1..TICKETS_PER_USER_MAX {
            issue("ada", start).unwrap();
        }
        assert_eq!(issue("ada", start), Err("too_many_tickets"));
        assert!(issue("bob", start).is_ok(), "another's do not count");
        tickets.redeem(&first, start).unwrap();
        assert!(issue("ada", start).is_ok(), "a used one makes room");
        let mut user = 0;
        while tickets.table().tickets.len() < TICKETS_MAX {
            user += 1;
            issue(&user.to_string(), start).unwrap();
        }
        assert_eq!(issue("eve", start), Err("too_many_tickets"));
        assert!(issue("eve", start + TICKET_TTL).is_ok());
        assert_eq!(tickets.table().tickets.len(), 1, "all others have expired");
    }
}
