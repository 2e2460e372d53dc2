//! Reverse and forward DNS: has the address a name in a crawler's domain, and has that name the address?

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use prometheus_client::metrics::counter::Counter;

use super::CrawlerOptions;
use super::rules::is_in;

/// Names of one address that are asked for their addresses. Crawlers have one; more are not looked at.
const MOST_NAMES: usize = 4;
/// Links of a chain of other names that are followed in one answer.
const MOST_LINKS: usize = 16;

/// What came of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the crawler, for so long.
    Verified(Duration),
    /// It is not, for so long.
    Fake(Duration),
    /// DNS gave no answer that says either; why.
    Unknown(String),
    /// Nothing is known by which it could be told.
    Untold,
}

/// Asks DNS servers.
#[derive(Clone)]
pub struct Verifier {
    resolver: TokioResolver,
    /// For one question with all its attempts, should the resolver not keep its own time.
    limit: Duration,
    questions: Counter,
    failures: Counter,
}

/// What an answer says, and for how long.
enum Told<T> {
    /// There are records.
    Records(T, Duration),
    /// There are none: the name does not exist, or has none of the kind.
    None(Duration),
    /// It is not known.
    Unknown(String),
}

impl Verifier {
    /// A verifier that asks the servers of `options`, or the host's.
    ///
    /// # Errors
    /// The host's servers are not known.
    pub fn new(options: &CrawlerOptions, questions: Counter, failures: Counter) -> Result<Self, String> {
        let mut servers: Vec<NameServerConfig> = options.resolvers.iter().copied().map(server).collect();
        if servers.is_empty() {
            let (config, _) = system_conf::read_system_conf().map_err(|error| {
                format!("the host's DNS servers are not known: {error}; name some in crawlers.resolvers")
            })?;
            servers = config.into_parts().2;
        }
        let mut resolver = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(servers),
            TokioRuntimeProvider::default(),
        );
        set(resolver.options_mut(), options);
        let resolver = resolver.build().map_err(|error| format!("no DNS resolver can be made: {error}"))?;
        let limit = options.timeout.saturating_mul(options.attempts.saturating_add(2));
        Ok(Self { resolver, limit, questions, failures })
    }

    /// Whether `ip` has a name in one of `domains` that has it.
    pub async fn verify(&self, ip: IpAddr, domains: &[Name]) -> Verdict {
        let (names, mut ttl) = match self.names(ip).await {
            Told::Records(names, ttl) => (names, ttl),
            Told::None(ttl) => return Verdict::Fake(ttl),
            Told::Unknown(why) => return Verdict::Unknown(why),
        };
        let mut unknown = None;
        for name in names.into_iter().filter(|name| is_in(domains, name)).take(MOST_NAMES) {
            match self.has_address(name, ip).await {
                Told::Records(true, of_address) => return Verdict::Verified(ttl.min(of_address)),
                Told::Records(false, of_address) | Told::None(of_address) => ttl = ttl.min(of_address),
                Told::Unknown(why) => unknown = Some(why),
            }
        }
        unknown.map_or(Verdict::Fake(ttl), Verdict::Unknown)
    }

    /// The names of an address.
    async fn names(&self, ip: IpAddr) -> Told<Vec<Name>> {
        let name = Name::from(ip);
        match self.ask(name.clone(), RecordType::PTR).await {
            Told::Records(answer, ttl) => {
                let name_of = |data: &RData| match data {
                    RData::PTR(name) => Some(name.0.clone()),
                    _ => None,
                };
                told(&name, &answer, name_of, ttl)
            }
            Told::None(ttl) => Told::None(ttl),
            Told::Unknown(why) => Told::Unknown(why),
        }
    }

    /// Whether a name has the address.
    async fn has_address(&self, mut name: Name, ip: IpAddr) -> Told<bool> {
        name.set_fqdn(true);
        let kind = if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        match self.ask(name.clone(), kind).await {
            Told::Records(answer, ttl) => {
                let address = |data: &RData| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                };
                match told(&name, &answer, address, ttl) {
                    Told::Records(addresses, ttl) => Told::Records(addresses.contains(&ip), ttl),
                    Told::None(ttl) => Told::None(ttl),
                    Told::Unknown(why) => Told::Unknown(why),
                }
            }
            Told::None(ttl) => Told::None(ttl),
            Told::Unknown(why) => Told::Unknown(why),
        }
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Told<Lookup> {
        self.questions.inc();
        let shown = format!("{kind} {name}");
        let began = Instant::now();
        let answer = tokio::time::timeout(self.limit, self.resolver.lookup(name, kind)).await;
        let why = match answer {
            Ok(Ok(lookup)) => {
                let ttl = lookup.valid_until().saturating_duration_since(began);
                return Told::Records(lookup, ttl);
            }
            Ok(Err(error)) => match none(&error) {
                Some(ttl) => return Told::None(ttl),
                None => error.to_string(),
            },
            Err(_) => format!("no answer within {:?}", self.limit),
        };
        self.failures.inc();
        Told::Unknown(format!("{shown}: {why}"))
    }
}

fn server(at: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(at.ip());
    server.connections.iter_mut().for_each(|connection| connection.port = at.port());
    server
}

fn set(resolver: &mut ResolverOpts, options: &CrawlerOptions) {
    resolver.timeout = options.timeout;
    resolver.attempts = usize::try_from(options.attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    // What is known is known by client.
    resolver.cache_size = 0;
    resolver.use_hosts_file = ResolveHosts::Never;
}

/// For how long it is known that there are no such records; `None` where the error says anything else.
fn none(error: &NetError) -> Option<Duration> {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return None };
    let is_told = match none.response_code {
        ResponseCode::NXDomain => true,
        // Without the zone's SOA it is a referral, or the answer of a server that knows nothing of the zone.
        ResponseCode::NoError => none.soa.is_some(),
        _ => false,
    };
    is_told.then(|| Duration::from_secs(none.negative_ttl.unwrap_or(0).into()))
}

/// What the records of `answer` about `name`, and about what it is another name of, say.
fn told<T>(name: &Name, answer: &Lookup, value: impl Fn(&RData) -> Option<T>, ttl: Duration) -> Told<Vec<T>> {
    let mut owners = vec![name.to_lowercase()];
    // Each turn takes in one further link of a chain.
    while owners.len() <= MOST_LINKS
        && let Some(next) = answer.answers().iter().find_map(|record| match &record.data {
            RData::CNAME(next) if owners.contains(&record.name.to_lowercase()) => {
                let next = next.0.to_lowercase();
                (!owners.contains(&next)).then_some(next)
            }
            _ => None,
        })
    {
        owners.push(next);
    }
    let records = answer.answers().iter().filter(|record| owners.contains(&record.name.to_lowercase()));
    let values: Vec<T> = records.filter_map(|record| value(&record.data)).collect();
    if values.is_empty() {
        return Told::Unknown(format!("{name}: the answer has no record of what was asked for"));
    }
    Told::Records(values, ttl)
}

#[cfg(test)]
mod tests;
