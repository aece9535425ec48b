"""A client in another language: publishes keyed events, and reads the group table with classes made from state.proto.

interop.py publish BROKERS TOPIC       events from standard input, one per line, keyed by registration_number
interop.py state BROKERS TABLE KEY     waits for the key's record and prints it as JSON
"""

import json
import sys

from confluent_kafka import Consumer, Producer


def publish(brokers, topic):
    # Kafka's own clients place keys by murmur2; librdkafka must be told to.
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "murmur2_random", "acks": "all"})
    failed = []
    for line in sys.stdin:
        line = line.strip()
        key = json.loads(line)["registration_number"]
        producer.produce(topic, key=key, value=line, on_delivery=lambda err, _: err and failed.append(err))
        producer.poll(0)
    producer.flush()
    if failed:
        sys.exit(str(failed[0]))


def state(brokers, table, key):
    from google.protobuf.json_format import MessageToJson
    from state_pb2 import ActivityRecord

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "interop", "auto.offset.reset": "earliest"})
    consumer.subscribe([table])
    while True:
        message = consumer.poll(1)
        if message is None or message.error() or message.key() is None or message.key().decode() != key:
            continue
        print(MessageToJson(ActivityRecord.FromString(message.value()), preserving_proto_field_name=True))
        return


if __name__ == "__main__":
    {"publish": publish, "state": state}[sys.argv[1]](*sys.argv[2:])
