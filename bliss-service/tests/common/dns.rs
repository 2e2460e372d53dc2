//! A DNS server on loopback that says what a test wants: the truth, lies, nothing, or half of it.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// What is said of a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// An address has these names.
    Names(Vec<String>),
    /// A name has these addresses.
    Addresses(Vec<IpAddr>),
    /// It is another name of this one.
    Alias(String),
    /// It does not exist.
    NxDomain,
    /// It exists, and has nothing of the kind; with the zone's SOA, or without.
    Empty {
        soa: bool,
    },
    /// The server fails, or does not want to answer.
    ServFail,
    Refused,
    /// Nothing at all.
    Hang,
    /// What is said is too long for UDP; over TCP it is said, or the connection is closed.
    Truncated {
        over_tcp: bool,
        then: Box<Says>,
    },
    /// Bytes that are no message.
    Garbage,
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Says>,
    questions: Vec<String>,
    ttl: u32,
}

/// A server, stopped when it is dropped.
pub struct Dns {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Dns {
    /// Names of which nothing is said do not exist.
    pub fn start() -> Self {
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
                let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
                Some((udp, tcp))
            })
            .expect("a port that is free for UDP and TCP");
        let address = udp.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone { ttl: 600, ..Zone::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (of_udp, of_tcp) = ((zone.clone(), stop.clone()), (zone.clone(), stop.clone()));
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &of_udp.0, &of_udp.1)),
            std::thread::spawn(move || serve_tcp(&tcp, &of_tcp.0, &of_tcp.1)),
        ];
        Self { address, zone, stop, threads }
    }

    /// Says something of a name, as `crawl.example` or `1.2.0.192.in-addr.arpa`.
    pub fn say(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().says.insert(name.to_lowercase(), says);
    }

    /// Says something of the names of an address.
    pub fn say_of(&self, ip: &str, says: Says) {
        self.say(&reverse(ip.parse().unwrap()), says);
    }

    /// The address has this name, and the name that address.
    pub fn honest(&self, ip: &str, name: &str) {
        self.say_of(ip, Says::Names(vec![name.into()]));
        self.say(name, Says::Addresses(vec![ip.parse().unwrap()]));
    }

    /// Names that were asked for so far.
    pub fn questions(&self) -> Vec<String> {
        self.zone.lock().unwrap().questions.clone()
    }

    /// For how long records count from now on, in seconds.
    pub fn set_ttl(&self, seconds: u32) {
        self.zone.lock().unwrap().ttl = seconds;
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // One that panicked said so; a second panic here would end all tests.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// The name under which the names of an address are.
pub fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", Ipv6Addr::to_bits(ip));
            let digits: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
    }
}

fn serve_udp(socket: &UdpSocket, zone: &Mutex<Zone>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length], zone, false) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Mutex<Zone>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let _ = serve_stream(stream, zone);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn serve_stream(mut stream: TcpStream, zone: &Mutex<Zone>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question)?;
    if let Some(answer) = answer(&question, zone, true) {
        stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes())?;
        stream.write_all(&answer)?;
    }
    Ok(())
}

fn put_name(message: &mut Vec<u8>, name: &str) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.push(0);
}

fn put_record(message: &mut Vec<u8>, owner: &str, kind: u16, ttl: u32, data: &[u8]) {
    put_name(message, owner);
    message.extend(kind.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message.extend(ttl.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    message.extend(data);
}

/// The answer to a question; `None`: there is none.
fn answer(question: &[u8], zone: &Mutex<Zone>, is_tcp: bool) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let asked = question.get(12..at + 4)?;
    let name = labels.join(".");
    let (mut says, ttl) = {
        let mut zone = zone.lock().unwrap();
        zone.questions.push(name.clone());
        (zone.says.get(&name.to_lowercase()).cloned().unwrap_or(Says::NxDomain), zone.ttl)
    };
    let mut truncated = false;
    if let Says::Truncated { over_tcp, then } = says {
        if is_tcp && !over_tcp {
            return None;
        }
        truncated = !is_tcp;
        says = *then;
    }
    let mut answers = Vec::new();
    let (mut count, mut rcode, mut soa) = (0u16, 0u8, false);
    match says {
        Says::Hang => return None,
        Says::Garbage => return Some(b"no message of DNS".to_vec()),
        Says::NxDomain => (rcode, soa) = (3, true),
        Says::Empty { soa: with } => soa = with,
        Says::ServFail => rcode = 2,
        Says::Refused => rcode = 5,
        Says::Alias(target) => {
            let mut data = Vec::new();
            put_name(&mut data, &target);
            put_record(&mut answers, &name, CNAME, ttl, &data);
            count = 1;
        }
        Says::Names(names) if kind == PTR => {
            for target in &names {
                let mut data = Vec::new();
                put_name(&mut data, target);
                put_record(&mut answers, &name, PTR, ttl, &data);
                count += 1;
            }
        }
        Says::Addresses(addresses) => {
            for address in addresses {
                match address {
                    IpAddr::V4(ip) if kind == A => put_record(&mut answers, &name, A, ttl, &ip.octets()),
                    IpAddr::V6(ip) if kind == AAAA => {
                        put_record(&mut answers, &name, AAAA, ttl, &ip.octets())
                    }
                    _ => continue,
                }
                count += 1;
            }
            soa = count == 0;
        }
        Says::Names(_) => soa = true,
        Says::Truncated { .. } => unreachable!(),
    }
    if !is_tcp && (truncated || answers.len() > 1100) {
        (truncated, count) = (true, 0);
        answers.clear();
    }
    let mut message = question.get(..2)?.to_vec();
    message.push(0x81 | u8::from(truncated) << 1);
    message.push(0x80 | rcode);
    for number in [1, count, u16::from(soa), 0] {
        message.extend(number.to_be_bytes());
    }
    message.extend(asked);
    message.extend(answers);
    if soa {
        let mut data = Vec::new();
        put_name(&mut data, "ns.example");
        put_name(&mut data, "hostmaster.example");
        for number in [1u32, 3600, 600, 86_400, ttl] {
            data.extend(number.to_be_bytes());
        }
        put_record(&mut message, labels.last().map_or("", String::as_str), SOA, ttl, &data);
    }
    Some(message)
}
