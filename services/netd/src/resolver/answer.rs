//! What a question is answered with, as far as the container's own networks know. Pure.

use hickory_proto::{
    op::{Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata},
};

use super::directory::View;

/// How long an answer may be kept: containers come and go.
const TTL_S: u32 = 5;
/// What a client that does not say otherwise takes over UDP.
pub(super) const UDP_MAX_BYTES: usize = 512;

/// What to do with a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// This, without asking anybody.
    Known(Message),
    /// It is for the resolvers; `otherwise` if there is none or none answers.
    Elsewhere { otherwise: Message },
    /// It is no question.
    None,
}

/// Answers the bytes of one question. `turn` decides which of several addresses comes first.
pub(super) fn answer(question: &[u8], view: &View, turn: usize) -> Answer {
    let Ok(question) = Message::from_vec(question) else { return Answer::None };
    if question.metadata.message_type != MessageType::Query {
        return Answer::None;
    }
    if question.metadata.op_code != OpCode::Query {
        return Answer::Known(reply(&question, ResponseCode::NotImp));
    }
    let [query] = question.queries.as_slice() else {
        return Answer::Known(reply(&question, ResponseCode::FormErr));
    };
    let elsewhere = || Answer::Elsewhere { otherwise: reply(&question, ResponseCode::ServFail) };
    if query.query_class != DNSClass::IN {
        return elsewhere();
    }
    if query.query_type == RecordType::PTR {
        return match name_of(&query.name, view) {
            Some(name) => {
                let mut known = reply(&question, ResponseCode::NoError);
                known.add_answer(Record::from_rdata(query.name.clone(), TTL_S, RData::PTR(rdata::PTR(name))));
                Answer::Known(known)
            }
            None => elsewhere(),
        };
    }
    let written = query.name.to_ascii().to_ascii_lowercase();
    let name = written.strip_suffix('.').unwrap_or(&written);
    let mut addresses = view.addresses(name);
    if addresses.is_empty() {
        return elsewhere();
    }
    // A name of ours: whatever else is asked of it, there is nothing.
    let mut known = reply(&question, ResponseCode::NoError);
    if matches!(query.query_type, RecordType::A | RecordType::ANY) {
        let first = turn % addresses.len();
        addresses.rotate_left(first);
        let record = |ip| Record::from_rdata(query.name.clone(), TTL_S, RData::A(rdata::A(ip)));
        known.add_answers(addresses.into_iter().map(record));
    }
    Answer::Known(known)
}

fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&question.metadata);
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(question.queries.iter().cloned());
    reply
}

/// What the address of a reverse question is called.
fn name_of(asked: &Name, view: &View) -> Option<Name> {
    let net = asked.parse_arpa_name().ok()?;
    let ipnet::IpNet::V4(net) = net else { return None };
    let name = (net.prefix_len() == 32).then(|| view.zones.iter().find_map(|zone| zone.name(net.addr())))??;
    Name::from_ascii(format!("{name}.")).ok()
}

/// The bytes of an answer over UDP: cut to what fits, saying so.
pub(super) fn udp_bytes(message: &Message) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= UDP_MAX_BYTES { Some(bytes) } else { message.truncate().to_vec().ok() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::net::{NetName, NetNetwork};
    use hickory_proto::op::Query;
    use model::NetworkId;

    use super::{super::directory::Zone, *};

    fn view(names: &[(&str, u8)]) -> View {
        let name = |(name, last): &(&str, u8)| NetName { name: (*name).into(), ip: [10, 128, 1, *last].into() };
        let network = NetNetwork {
            id: NetworkId::from_bytes([1; 32]),
            vni: 1,
            subnet: "10.128.1.0/24".parse().expect("a subnet"),
            gateway: None,
            internal: false,
            peers: Vec::new(),
            names: Some(names.iter().map(name).collect()),
        };
        View { zones: vec![Arc::new(Zone::of(&network))], links: vec![Arc::default()], resolvers: Vec::new() }
    }

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut question = Message::query();
        question.metadata.id = 7;
        question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        question.to_vec().expect("encodes")
    }

    fn known(answer: Answer) -> Message {
        let Answer::Known(message) = answer else { panic!("{answer:?}") };
        assert_eq!(message.metadata.id, 7);
        message
    }

    #[test]
    fn a_name_is_found_whatever_its_case_and_several_addresses_take_turns() {
        let view = view(&[("web", 2), ("web", 3)]);
        let first = known(answer(&ask("WEB.", RecordType::A), &view, 0));
        let then = known(answer(&ask("web.", RecordType::A), &view, 1));
        assert_eq!(first.answers.len(), 2);
        assert_ne!(first.answers[0].data, then.answers[0].data);
        assert_eq!(first.queries[0].name.to_ascii(), "WEB.", "the question comes back as it was asked");
    }

    #[test]
    fn a_name_of_ours_has_no_ipv6_address_and_that_is_no_error() {
        let none = known(answer(&ask("web.", RecordType::AAAA), &view(&[("web", 2)]), 0));
        assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    }

    #[test]
    fn an_address_of_ours_has_a_name() {
        let reply = known(answer(&ask("2.1.128.10.in-addr.arpa.", RecordType::PTR), &view(&[("web", 2)]), 0));
        assert_eq!(reply.answers[0].data.to_string(), "web.");
        let other = answer(&ask("9.1.128.10.in-addr.arpa.", RecordType::PTR), &view(&[("web", 2)]), 0);
        assert!(matches!(other, Answer::Elsewhere { .. }));
    }

    #[test]
    fn other_names_are_for_the_resolvers_and_noise_is_for_nobody() {
        assert!(matches!(
            answer(&ask("example.com.", RecordType::A), &view(&[("web", 2)]), 0),
            Answer::Elsewhere { .. }
        ));
        assert!(matches!(answer(b"noise", &view(&[]), 0), Answer::None));
        let mut reply = ask("web.", RecordType::A);
        reply[2] |= 0x80;
        assert!(matches!(answer(&reply, &view(&[("web", 2)]), 0), Answer::None), "an answer is no question");
    }

    #[test]
    fn an_answer_too_large_for_udp_says_so() {
        let names: Vec<(&str, u8)> = (2..=200).map(|n| ("web", n)).collect();
        let bytes = udp_bytes(&known(answer(&ask("web.", RecordType::A), &view(&names), 0))).expect("encodes");
        assert!(bytes.len() <= UDP_MAX_BYTES);
        assert!(Message::from_vec(&bytes).expect("decodes").metadata.truncation);
    }
}
