//! Reading `expect.yaml`. JSON is YAML too.
//!
//! The file's form is that of the `…File` structs; words are read by [`Source`]'s and
//! [`Destination`]'s own rules. Every error names the file and the line; what the reader of YAML
//! says is told in words of the file (`wording`), with the column.

mod wording;

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use unmasq_model::packet::Family;

use super::{ALL, Destination, Expectations, Flow, Gateway, LoadBalancer, SCHEMA, Source, ToldBy};
use crate::matrix::Entry;

/// Why a file can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}: {message}", place(.path, *.line, *.column))]
pub struct Error {
    /// The file's name.
    pub path: String,
    /// The line, counted from 1, if it is about one.
    pub line: Option<u64>,
    /// The column, counted from 1, if it is about one place in the line.
    pub column: Option<u64>,
    /// What is wrong.
    pub message: String,
}

fn place(path: &str, line: Option<u64>, column: Option<u64>) -> String {
    let numbers = [line, column].into_iter().map_while(|number| number);
    numbers.fold(path.to_owned(), |place, number| format!("{place}:{number}"))
}

/// Reads a file's text; `path` is its name in sentences.
pub fn parse(text: &str, path: &str) -> Result<Expectations, Error> {
    let error = |line: u64, message: String| Error {
        path: path.to_owned(),
        line: (line > 0).then_some(line),
        column: None,
        message,
    };
    let file: File = serde_saphyr::from_str(text).map_err(|found| {
        let at = found.location();
        let column = at.map(|at| at.column()).filter(|column| *column > 0);
        let line = at.map_or(0, |at| at.line());
        Error { column, ..error(line, wording::told(&found, text)) }
    })?;
    if file.schema.value != SCHEMA {
        let message = format!("the schema is {SCHEMA}, not {}", file.schema.value);
        return Err(error(file.schema.referenced.line(), message));
    }
    let flows = |all: Option<Vec<Spanned<FlowFile>>>, may_be_told: bool| {
        let each = all.into_iter().flatten().map(|found| {
            let line = found.referenced.line();
            found.value.flow(line, may_be_told).map_err(|message| error(line, message))
        });
        each.collect::<Result<Vec<Flow>, Error>>()
    };
    let outside = file.outside.unwrap_or_default();
    Ok(Expectations {
        path: path.to_owned(),
        preserved: flows(file.preserved, true)?,
        translated: flows(file.translated, false)?,
        load_balancers: outside
            .load_balancers
            .into_iter()
            .map(|found| found.value.read(found.referenced.line()))
            .collect(),
        gateways: outside.gateways.into_iter().map(GatewayFile::read).collect(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    schema: Spanned<String>,
    #[serde(default)]
    preserved: Option<Vec<Spanned<FlowFile>>>,
    #[serde(default)]
    translated: Option<Vec<Spanned<FlowFile>>>,
    #[serde(default)]
    outside: Option<OutsideFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FlowFile {
    #[serde(default)]
    name: Option<String>,
    #[serde(deserialize_with = "some_words")]
    from: Vec<Source>,
    #[serde(deserialize_with = "some_words")]
    to: Vec<Destination>,
    #[serde(default, deserialize_with = "some")]
    entries: Vec<EntryFile>,
    #[serde(default, deserialize_with = "some")]
    families: Vec<FamilyFile>,
    #[serde(default)]
    told_by: Option<ToldByFile>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct OutsideFile {
    load_balancers: Vec<Spanned<LoadBalancerFile>>,
    gateways: Vec<GatewayFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LoadBalancerFile {
    #[serde(deserialize_with = "some_words")]
    services: Vec<ServiceName>,
    #[serde(default)]
    health_checks: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GatewayFile {
    #[serde(default, deserialize_with = "words")]
    knows_pods: Vec<Network>,
    #[serde(default, deserialize_with = "words")]
    masquerades: Vec<Network>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum EntryFile {
    #[serde(alias = "clusterip")]
    ClusterIp,
    #[serde(alias = "nodeport")]
    NodePort,
    #[serde(alias = "lb", alias = "loadbalancer")]
    LoadBalancer,
    #[serde(alias = "externalip")]
    ExternalIp,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum FamilyFile {
    Ipv4,
    Ipv6,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum ToldByFile {
    ProxyProtocol,
    ForwardedFor,
}

impl FlowFile {
    fn flow(self, line: u64, may_be_told: bool) -> Result<Flow, String> {
        if self.told_by.is_some() && !may_be_told {
            return Err("told-by is for preserved, not for translated".to_owned());
        }
        let to_service = |to: &Destination| match to {
            Destination::Service { .. } | Destination::Services => true,
            Destination::Pods
            | Destination::Nodes
            | Destination::Internet
            | Destination::Network(_) => false,
        };
        if !self.entries.is_empty() && !self.to.iter().any(to_service) {
            return Err("entries are those of Services, and to names none".to_owned());
        }
        let entry = |entry: EntryFile| match entry {
            EntryFile::ClusterIp => Entry::ClusterIp,
            EntryFile::NodePort => Entry::NodePort,
            EntryFile::LoadBalancer => Entry::LoadBalancer,
            EntryFile::ExternalIp => Entry::ExternalIp,
        };
        let family = |family: FamilyFile| match family {
            FamilyFile::Ipv4 => Family::V4,
            FamilyFile::Ipv6 => Family::V6,
        };
        let told_by = |told: ToldByFile| match told {
            ToldByFile::ProxyProtocol => ToldBy::ProxyProtocol,
            ToldByFile::ForwardedFor => ToldBy::ForwardedFor,
        };
        Ok(Flow {
            name: self.name,
            line,
            from: self.from,
            to: self.to,
            entries: self.entries.into_iter().map(entry).collect(),
            families: self.families.into_iter().map(family).collect(),
            told_by: self.told_by.map(told_by),
        })
    }
}

impl LoadBalancerFile {
    fn read(self, line: u64) -> LoadBalancer {
        let services = self.services.into_iter().map(|ServiceName(namespace, name)| {
            (namespace, name.unwrap_or_else(|| ALL.to_owned()))
        });
        LoadBalancer { line, services: services.collect(), health_checks: self.health_checks }
    }
}

impl GatewayFile {
    fn read(self) -> Gateway {
        let nets = |all: Vec<Network>| all.into_iter().map(|Network(net)| net).collect();
        Gateway { knows_pods: nets(self.knows_pods), masquerades: nets(self.masquerades) }
    }
}

/// A network, or an address for a network of one.
struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().map(|net| net.trunc());
        let net = net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(Network).map_err(|_| format!("{text} is no network: write one like 192.0.2.0/24"))
    }
}

/// `NAMESPACE/NAME` or `NAMESPACE/*`
struct ServiceName(String, Option<String>);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = ["service/", "services/", "svc/"];
        let of_kind = kinds.iter().find_map(|kind| text.strip_prefix(kind));
        match of_kind.filter(|rest| rest.contains('/')).unwrap_or(text).split_once('/') {
            Some((namespace, name)) if [namespace, name].iter().all(|part| is_name(part)) => {
                let name = Some(name.to_owned()).filter(|name| name != ALL);
                Ok(ServiceName(namespace.to_owned(), name))
            }
            Some(_) | None => Err(format!("{text} is no Service: write NAMESPACE/NAME")),
        }
    }
}

/// ` (did you mean pods?)`, if a word is near.
fn meant(text: &str, known: &[&str]) -> String {
    match wording::near(text, known) {
        Some(near) => format!(" (did you mean {near}?)"),
        None => String::new(),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let near = meant(text, &["outside", "pods", "nodes"]);
        match text {
            "outside" => Ok(Source::Outside),
            "pods" | "pod" => Ok(Source::Pods),
            "nodes" | "node" => Ok(Source::Nodes),
            _ => match text.parse() {
                Ok(Network(net)) => Ok(Source::Network(net)),
                Err(_) => Err(format!(
                    "{text} is nobody who calls{near}: write outside, pods, nodes or a network like \
                     192.0.2.0/24"
                )),
            },
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = ["service/", "services/", "svc/"];
        if let Some(service) = kinds.iter().find_map(|kind| text.strip_prefix(kind)) {
            let ServiceName(namespace, name) = service
                .parse()
                .map_err(|_| format!("{text} is no Service: write service/NAMESPACE/NAME"))?;
            return Ok(Destination::Service { namespace, name });
        }
        let near = match text.split_once('/') {
            Some((kind, rest)) => match wording::near(kind, &["service"]) {
                Some(kind) => format!(" (did you mean {kind}/{rest}?)"),
                None => String::new(),
            },
            None => meant(text, &["services", "pods", "nodes", "internet"]),
        };
        match text {
            "services" => Ok(Destination::Services),
            "pods" | "pod" => Ok(Destination::Pods),
            "nodes" | "node" => Ok(Destination::Nodes),
            "internet" => Ok(Destination::Internet),
            _ => match text.parse() {
                Ok(Network(net)) => Ok(Destination::Network(net)),
                Err(_) => Err(format!(
                    "{text} is nobody who is called{near}: write service/NAMESPACE/NAME, services, \
                     pods, nodes, internet or a network like 10.200.0.0/16"
                )),
            },
        }
    }
}

/// A word of a list, read where it stands, so that an error has its line.
struct Word<T>(T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Word).map_err(D::Error::custom)
    }
}

fn words<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let words = Vec::<Word<T>>::deserialize(deserializer)?;
    Ok(words.into_iter().map(|Word(word)| word).collect())
}

fn some_words<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let words = words(deserializer)?;
    at_least_one(words)
}

fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    at_least_one(Vec::deserialize(deserializer)?)
}

fn at_least_one<T, E: serde::de::Error>(all: Vec<T>) -> Result<Vec<T>, E> {
    if all.is_empty() { Err(E::custom(EMPTY)) } else { Ok(all) }
}

const EMPTY: &str = "an empty list: name something, or leave the field out";
