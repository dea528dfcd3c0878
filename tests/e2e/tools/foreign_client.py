#!/usr/bin/python3
"""A client of podsecd that shares nothing with it but the descriptor set and docs/session.md.

    foreign_client.py SOCKET DESCRIPTORS WORD…

Words, each with a line of JSON for its answer:
    call METHOD JSON        podsec.v1.METHOD with a request in protobuf's JSON mapping; all messages of a stream
    bytes METHOD HEX        the request as bytes, METHOD with its package
    health SERVICE          grpc.health.v1.Health/Check; 'watch' for SERVICE: the first answer of Watch
    reflect HEX             grpc.reflection.v1.ServerReflection with one request
    enter JSON              NamespaceService/Enter and the session, by hand; further words until 'end':
        in TEXT             the program's standard input, or what is typed
        signal N            our number of a signal, once it has started and written something
"""
import array
import json
import os
import socket
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory


def message_class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory().GetPrototype(descriptor)


def fields(data):
    """Number and value of each field of a protobuf message (protobuf.dev/programming-guides/encoding)."""
    def varint(at):
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    at, found = 0, {}
    while at < len(data):
        key, at = varint(at)
        value, at = varint(at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        elif key & 7 != 0:
            raise ValueError(f"a field of kind {key & 7}")
        found.setdefault(key >> 3, []).append(value)
    return found


def refusal(error):
    """The status and its google.rpc.ErrorInfo (google/rpc/error_details.proto)."""
    info = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in fields(value).get(3, ()):
                info = fields(fields(detail)[2][0])
    text = {number: values[0].decode() for number, values in info.items() if number in (1, 2)}
    return {"code": error.code().value[0], "message": error.details(),
            "reason": text.get(1, ""), "domain": text.get(2, "")}


class Client:
    def __init__(self, path, descriptors):
        self.channel = grpc.insecure_channel("unix:" + path)
        self.pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(open(descriptors, "rb").read())
        for file in files.file:
            self.pool.Add(file)

    def raw(self, method, request):
        """All answers, as bytes."""
        call = self.channel.unary_stream("/" + method, request_serializer=None, response_deserializer=None)
        return list(call(request, timeout=10))

    def call(self, method, request):
        service, name = method.split("/")
        found = self.pool.FindServiceByName("podsec.v1." + service).FindMethodByName(name)
        request = json_format.Parse(request, message_class(found.input_type)())
        response = message_class(found.output_type)
        return [response.FromString(answer)
                for answer in self.raw("podsec.v1." + method, request.SerializeToString())]

    def enter(self, request, words):
        entered, = self.call("NamespaceService/Enter", request)
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gate.connect(entered.attach_socket)
        gate.send(entered.ticket)
        verdict, given, _, _ = socket.recv_fds(gate, 16, 1)
        if verdict != b"\0":
            return {"attach": verdict.hex()}
        gate.close()
        self.channel.close()
        session = socket.socket(fileno=given[0])
        terminal = "terminal" in json.loads(request)
        typed, signals = b"", []
        while (word := words.pop(0)) != "end":
            if word == "in":
                typed += words.pop(0).encode()
            else:
                signals.append(int(words.pop(0)))
        return self.with_terminal(session, typed) if terminal else self.with_pipes(session, typed, signals)

    def with_pipes(self, session, typed, signals):
        pipes = [os.pipe() for _ in range(3)]
        (input_end, to_input), (from_output, output_end), (from_error, error_end) = pipes
        theirs = array.array("i", [input_end, output_end, error_end])
        socket.send_fds(session, [b"\0"], theirs)
        for fd in theirs:
            os.close(fd)
        told = [session.recv(4096)]
        os.write(to_input, typed)
        os.close(to_input)
        output = b""
        if signals:
            output = os.read(from_output, 4096)
        for signal in signals:
            session.send(bytes([1, signal]))
        output += read_all(from_output)
        told += frames(session)
        return {"frames": [frame.hex() for frame in told], "out": output.decode(), "err": read_all(from_error).decode()}

    @staticmethod
    def with_terminal(session, typed):
        session.send(b"\0")
        first, given, _, _ = socket.recv_fds(session, 4096, 1)
        leader = given[0]
        os.write(leader, typed)
        output = read_all(leader)
        told = [first] + frames(session)
        return {"frames": [frame.hex() for frame in told], "out": output.decode()}


def frames(session):
    """Up to the end."""
    found = []
    while frame := session.recv(4096):
        found.append(frame)
    return found


def read_all(fd):
    data = b""
    while True:
        try:
            more = os.read(fd, 65536)
        except OSError:  # EIO: the last program on the terminal has closed it
            more = b""
        if not more:
            return data
        data += more


def main():
    path, descriptors, *words = sys.argv[1:]
    client = Client(path, descriptors)
    while words:
        word = words.pop(0)
        try:
            if word == "call":
                method, request = words.pop(0), words.pop(0)
                answers = client.call(method, request)
                answer = [json_format.MessageToDict(answer, preserving_proto_field_name=True) for answer in answers]
            elif word == "bytes":
                method, request = words.pop(0), bytes.fromhex(words.pop(0))
                answer = [answer.hex() for answer in client.raw(method, request)]
            elif word == "health":
                service = words.pop(0).encode()
                if service == b"watch":
                    watch = client.channel.unary_stream("/grpc.health.v1.Health/Watch")
                    answer = next(watch(b"", timeout=10)).hex()
                else:
                    request = b"\n" + bytes([len(service)]) + service if service else b""
                    answer = client.raw("grpc.health.v1.Health/Check", request)[0].hex()
            elif word == "reflect":
                ask = client.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
                answer = [answer.hex() for answer in ask(iter([bytes.fromhex(words.pop(0))]), timeout=10)]
            elif word == "enter":
                answer = client.enter(words.pop(0), words)
            else:
                sys.exit(f"{word}: no such word")
            answer = {"code": 0, "answer": answer}
        except grpc.RpcError as error:
            answer = refusal(error)
        print(json.dumps(answer), flush=True)


main()
