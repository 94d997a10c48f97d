"""Proves that a gRPC client which is none of ours can inject: Python's grpcio streams messages, closes its direction at once, and gets every
answer before the stream ends with OK; a refused message does not break the stream."""
import unittest

from tests.integration.scenario import ScenarioTest

try:
    import grpc
except ImportError:
    grpc = None

MESSAGES = 300
METHOD = "/sluice.ingest.v1.IngestService/"


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """One protobuf field: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """{number: value} of a flat message; the last of each."""
    at, out = 0, {}

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
    while at < len(data):
        key = read()
        value = read()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        out[key >> 3] = value
    return out


def request(recipient):
    """sluice.ingest.v1.InjectRequest"""
    recipients = field(2, field(1, recipient)) if recipient else b""
    return field(1, b"sender@client.test") + recipients + field(3, b"Subject: grpcio\n\nbody\n")


class GrpcClientTest(ScenarioTest):
    def setUp(self):
        super().setUp()
        self.needs("python3-grpcio is not installed" if grpc is None else None)
        self.under_test = self.node()
        self.channel = grpc.insecure_channel(self.under_test.ctl._server)
        self.addCleanup(self.channel.close)

    def test_half_closed_stream_gets_every_answer(self):
        def messages():
            for token in range(1, MESSAGES + 1):
                # Every tenth has no recipient.
                yield field(1, token) + field(2, request(b"u%d@example.test" % token if token % 10 else None))
        call = self.channel.stream_stream(METHOD + "InjectStream")(messages(), timeout=60)
        answers = {fields(answer)[1]: fields(answer) for answer in call}
        self.assertEqual(call.code(), grpc.StatusCode.OK)
        self.assertEqual(set(answers), set(range(1, MESSAGES + 1)))
        for token, answer in answers.items():
            self.assertEqual(answer.get(2, 0), 0 if token % 10 else grpc.StatusCode.INVALID_ARGUMENT.value[0], answer)
            self.assertEqual(len(answer.get(4, b"")), 26 if token % 10 else 0)
        self.receiver.wait_for(MESSAGES - MESSAGES // 10)
        self.under_test.ctl.wait_empty()

    def test_unary(self):
        answer = self.channel.unary_unary(METHOD + "Inject")(request(b"u@example.test"), timeout=60)
        self.assertEqual(len(fields(answer)[1]), 26)
        with self.assertRaises(grpc.RpcError) as refused:
            self.channel.unary_unary(METHOD + "Inject")(request(None), timeout=60)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.receiver.wait_for(1)


if __name__ == "__main__":
    unittest.main()
