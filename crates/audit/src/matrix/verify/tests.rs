use std::net::SocketAddr;

use unmasq_model::packet::Protocol;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn check(predicted: Vec<Predicted>) -> Check {
    let from = Caller::Outside { node: 0, address: address("192.168.7.20") };
    let call = Call {
        from,
        source_port: None,
        to: address("10.0.0.11"),
        port: Some(30080),
        protocol: Protocol::TCP,
    };
    Check {
        calls: vec![call],
        entry: Entry::NodePort,
        outside: Some(Outside::Anybody),
        name: None,
        service: None,
        own: None,
        predicted,
    }
}

fn predicted(what: What) -> Predicted {
    Predicted { what, at: Some((address("10.42.1.2"), Some(8080))) }
}

fn seen(what: Happened) -> Seen {
    Seen { from: "192.168.7.20:41000".parse().ok(), what }
}

fn answered(source: &str, at: &str) -> Happened {
    let parsed = |text: &str| text.parse::<SocketAddr>().unwrap();
    Happened::Answered { source: parsed(source), at: parsed(at) }
}

#[test]
fn what_is_seen_beside_what_is_predicted() {
    use Happened::{Failed, Foreign, Refused, Silent};
    use Verdict::{AsPredicted, Differs, Unpredicted, Unseen};
    let web = "10.42.1.2:8080";
    let kept = || answered("192.168.7.20:41000", web);
    let lost = || answered("10.0.0.11:1024", web);
    let rewritten = || What::Rewritten(address("10.0.0.11"));
    let unknown = || What::Unknown(vec!["a set was not captured".to_owned()]);
    let (no_way, reset) = (Refused { unreachable: true }, Refused { unreachable: false });
    let foreign = || Foreign("HTTP 200".to_owned());
    let failed = || Failed("no such address".to_owned());
    for (predictions, happened, expected) in [
        (vec![What::Preserved], vec![kept()], AsPredicted),
        // Another port is no other source.
        (vec![What::Preserved], vec![answered("192.168.7.20:9", web)], AsPredicted),
        (vec![What::Preserved], vec![lost()], Differs),
        (vec![What::Preserved], vec![answered("192.168.7.20:1", "10.42.1.3:8080")], Differs),
        (vec![What::Preserved], vec![answered("192.168.7.20:1", "10.42.1.2:8081")], Differs),
        (vec![What::Preserved], vec![Silent], Differs),
        (vec![What::Preserved], vec![reset.clone()], Differs),
        (vec![rewritten()], vec![lost()], AsPredicted),
        (vec![rewritten()], vec![kept()], Differs),
        (vec![rewritten()], vec![answered("10.0.0.12:1024", web)], Differs),
        (vec![What::Silence], vec![Silent], AsPredicted),
        (vec![What::Silence], vec![reset.clone()], Differs),
        (vec![What::Silence], vec![kept()], Differs),
        (vec![What::Silence], vec![foreign()], Differs),
        (vec![What::Refusal], vec![reset.clone()], AsPredicted),
        (vec![What::Refusal], vec![Silent], Differs),
        (vec![What::Nobody], vec![Silent, no_way], AsPredicted),
        (vec![What::Nobody], vec![reset], Differs),
        // Of several connections each must be one of those that are possible.
        (vec![What::Preserved, What::Silence], vec![kept(), Silent], AsPredicted),
        (vec![What::Preserved, What::Silence], vec![kept(), lost()], Differs),
        // What doesn't say what it sees proves nothing, and neither does what was not made.
        (vec![What::Preserved], vec![foreign()], Unseen),
        (vec![What::Preserved], vec![kept(), failed()], Unseen),
        (vec![What::Preserved], vec![lost(), failed()], Differs),
        (vec![What::Preserved], vec![], Unseen),
        // What is unknown agrees with nothing, whatever else is possible.
        (vec![unknown()], vec![kept()], Unpredicted),
        (vec![What::Preserved, unknown()], vec![kept()], Unpredicted),
        (vec![], vec![kept()], Unpredicted),
    ] {
        let check = check(predictions.into_iter().map(predicted).collect());
        let seen: Vec<Seen> = happened.into_iter().map(seen).collect();
        assert_eq!(verdict(&check, &seen), expected, "{check:?} {seen:?}");
    }
}

#[test]
fn a_bound_leaves_some_of_each_kind() {
    let all = || vec![("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5), ("c", 6)];
    for (most, expected, left) in [
        (9, vec![1, 2, 3, 4, 5, 6], 0),
        (6, vec![1, 2, 3, 4, 5, 6], 0),
        (4, vec![1, 2, 4, 6], 2),
        (2, vec![1, 4], 4),
        (0, vec![], 6),
    ] {
        assert_eq!(bound::bounded(all(), most), (expected, left));
    }
}
