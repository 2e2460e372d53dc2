//! The result of a trial, for people.

use std::fmt;

use super::{Held, Newly, Trial};

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, clients, against, candidate, .. } = self;
        writeln!(f, "{requests} requests of {clients} clients\n")?;
        writeln!(f, "                      requests             clients")?;
        writeln!(f, "                  today  candidate    today  candidate")?;
        let columns = [&against.requests, &candidate.requests, &against.clients, &candidate.clients];
        for (name, [a, b, c, d]) in [
            ("blocked", columns.map(|held| held.block)),
            ("challenged", columns.map(|held| held.challenge)),
            ("rate limited", columns.map(|held| held.rate_limit_key)),
        ] {
            writeln!(f, "{name:<14}{a:>9}{b:>11}{c:>9}{d:>11}")?;
        }
        let through = |held: &Held| requests - held.any();
        writeln!(
            f,
            "{:<14}{:>9}{:>11}\n",
            "let through",
            through(&against.requests),
            through(&candidate.requests)
        )?;
        let crawlers = match self.newly_held_verified_crawlers {
            Some(count) => format!("{count} verified crawlers"),
            None => "verified crawlers are not known, since nothing published says which are".to_owned(),
        };
        writeln!(
            f,
            "newly blocked, challenged or limited: {} clients with {} requests; among them {} with strong signs of people, {crawlers}, \
             {} requests that are exempt today",
            self.newly_held_clients,
            self.newly_held_requests,
            self.newly_held_people,
            self.newly_held_exempt_requests
        )?;
        writeln!(f, "let through again: {} clients", self.newly_let_through_clients)?;
        if !self.largest.is_empty() {
            writeln!(f, "\n    held      of  rule and client")?;
        }
        for Newly { ip, user_agent, requests, held, rule, is_person, is_verified_crawler } in &self.largest {
            let signs = match (is_person, is_verified_crawler) {
                (_, true) => "  [verified crawler]",
                (true, _) => "  [signs of a person]",
                _ => "",
            };
            writeln!(f, "{held:>8}{requests:>8}  {rule}: {ip}  {user_agent}{signs}")?;
        }
        Ok(())
    }
}
