//! iceoryx2: publish and subscribe in shared memory, without a daemon.

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::message::{Bytes, Check, Message};
use crate::peer::{Peer, Receiver, Sender};

const BUFFERED: usize = 8_192;

pub struct Ice;

type Service = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, Bytes, ()>;

fn service(link: &str, receivers: usize) -> (Node<ipc::Service>, Service) {
    let node = NodeBuilder::new().create::<ipc::Service>().expect("a node");
    let service = node
        .service_builder(&link.try_into().expect("a name"))
        .publish_subscribe::<Bytes>()
        .subscriber_max_buffer_size(BUFFERED)
        .max_subscribers(receivers)
        .max_publishers(1)
        .enable_safe_overflow(false)
        .open_or_create()
        .expect("a service");
    (node, service)
}

impl Peer for Ice {
    const NAME: &'static str = "iceoryx2";
    const BROADCASTS: bool = true;
    type Sender = IceSender;
    type Receiver = IceReceiver;

    fn receiver(link: &str, _: usize, receivers: usize) -> Self::Receiver {
        let (node, service) = service(link, receivers);
        let subscriber = service.subscriber_builder().buffer_size(BUFFERED).create().expect("a subscriber");
        IceReceiver { subscriber, _service: service, _node: node }
    }

    fn sender(link: &str, receivers: usize) -> Self::Sender {
        let (node, service) = service(link, receivers);
        let publisher = service
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .expect("a publisher");
        IceSender { publisher, _service: service, _node: node }
    }
}

pub struct IceSender {
    publisher: Publisher<ipc::Service, Bytes, ()>,
    _service: Service,
    _node: Node<ipc::Service>,
}

impl Sender for IceSender {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        let Ok(sample) = self.publisher.loan_uninit() else { return false };
        sample.write_payload(message.to_bytes()).send().expect("sent");
        true
    }
}

pub struct IceReceiver {
    subscriber: Subscriber<ipc::Service, Bytes, ()>,
    _service: Service,
    _node: Node<ipc::Service>,
}

impl Receiver for IceReceiver {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        let mut count = 0;
        while count < 256 {
            let Some(sample) = self.subscriber.receive().expect("a sound service") else { break };
            stamp(check.bytes(&sample.payload()[..]));
            count += 1;
        }
        count
    }
}
