#!/usr/bin/python3
"""Every NBD option as the specification has it, and what is refused. Usage: options.py SOCKET EXPORT"""

import struct
import sys

import nbd

import wire
from wire import Client, Closed, information, named, text

SILENT = (b"", b"\0", b"\0\0\0\0")


def the_server_offers_fixed_newstyle_and_no_zeroes(path, export):
    with Client(path) as client:
        assert client.server_flags & 3 == 3, client.server_flags


def unknown_client_flags_end_the_connection(path, export):
    with Client(path, client_flags=0x80000003) as client:
        assert client.is_closed()


def a_wrong_option_magic_ends_the_connection(path, export):
    with Client(path) as client:
        client.send(b"IHAVEOPX" + struct.pack(">II", wire.LIST, 0))
        assert client.is_closed()


def an_unknown_option_is_refused_and_the_next_one_heard(path, export):
    with Client(path) as client:
        assert client.kind_of(0x4242, b"some data") == wire.ERR_UNSUP
        assert client.kind_of(4) == wire.ERR_UNSUP  # PEEK_EXPORT, withdrawn
        assert client.kind_of(wire.LIST) == wire.ACK


def list_names_the_export(path, export):
    with Client(path) as client:
        answers = client.ask(wire.LIST)
        assert answers[-1][0] == wire.ACK
        names = [data[4:4 + struct.unpack(">I", data[:4])[0]].decode() for kind, data in answers if kind == wire.SERVER]
        assert export in names, names


def list_with_data_is_refused(path, export):
    with Client(path) as client:
        assert client.kind_of(wire.LIST, b"x") == wire.ERR_INVALID


def abort_is_acknowledged_and_ends_the_connection(path, export):
    with Client(path) as client:
        assert client.kind_of(wire.ABORT) == wire.ACK
        assert client.is_closed()


def export_name_enters_transmission_with_and_without_padding(path, export):
    for client_flags, padding in ((1, 124), (3, 0)):
        with Client(path, client_flags=client_flags) as client:
            client.say(wire.EXPORT_NAME, export.encode())
            size, flags = struct.unpack(">QH", client.take(10))
            assert size > 0 and flags & 1
            assert client.take(padding) == bytes(padding)
            assert len(client.read(0, 512)) == 512


def export_name_of_no_export_ends_the_connection(path, export):
    with Client(path) as client:
        client.say(wire.EXPORT_NAME, b"nothing-of-this-name")
        assert client.is_closed()


def a_client_that_is_not_fixed_newstyle_may_only_name_an_export(path, export):
    with Client(path, client_flags=0) as client:
        client.say(wire.LIST)
        assert client.is_closed()


def info_tells_size_flags_and_block_sizes_and_stays(path, export):
    with Client(path) as client:
        answers = client.ask(wire.INFO, information(export, (wire.INFO_BLOCK_SIZE, wire.INFO_NAME)))
        assert answers[-1][0] == wire.ACK
        told = {struct.unpack(">H", data[:2])[0]: data[2:] for kind, data in answers if kind == wire.REPLY_INFO}
        size, flags = struct.unpack(">QH", told[wire.INFO_EXPORT])
        least, preferred, most = struct.unpack(">III", told[wire.INFO_BLOCK_SIZE])
        assert size % 512 == 0 and flags & 1
        assert least in (1, 512) and preferred >= 4096 and most >= 1 << 20, (least, preferred, most)
        assert told.get(wire.INFO_NAME, export.encode()) == export.encode()
        assert client.kind_of(wire.LIST) == wire.ACK


def go_enters_transmission(path, export):
    with Client(path) as client:
        size, flags = client.go(export)
        assert size > 0
        for ability in (2, 3, 5, 6, 8):  # flush, FUA, trim, write-zeroes, multi-conn
            assert flags & 1 << ability, (ability, bin(flags))
        assert not flags & 1 << 7, "DF is offered without structured replies"
        assert len(client.read(0, 4096)) == 4096


def info_and_go_of_no_export_are_refused_and_the_next_one_heard(path, export):
    with Client(path) as client:
        for option in (wire.INFO, wire.GO):
            assert client.kind_of(option, information("nothing-of-this-name")) == wire.ERR_UNKNOWN
        client.go(export)


def info_and_go_with_data_that_does_not_add_up_are_refused(path, export):
    name = export.encode()
    wrong = [*SILENT, text(export), text(export) + b"\0", struct.pack(">I", 1 << 31) + name + b"\0\0",
             struct.pack(">I", len(name) + 1) + name + b"\0\0", information(export) + b"x",
             text(export) + struct.pack(">H", 0xFFFF), text(export) + struct.pack(">HH", 2, 3),
             struct.pack(">I", 2) + b"\xff\xfe" + b"\0\0"]
    with Client(path) as client:
        for option in (wire.INFO, wire.GO):
            for data in wrong:
                kind = client.kind_of(option, data)
                assert kind in (wire.ERR_INVALID, wire.ERR_TOO_BIG, wire.ERR_UNKNOWN) and (
                    data != b"" or kind != wire.ERR_UNKNOWN), (option, data, hex(kind))
        client.go(export)


def an_absurdly_long_option_is_refused_or_ends_the_connection(path, export):
    for option in (wire.LIST, wire.GO, wire.SET_META, wire.EXPORT_NAME, 0x4242):
        with Client(path) as client:
            client.say(option, b"", length=0xFFFFFFFF)
            try:
                kind, _ = client.answer(option)
                assert kind in (wire.ERR_TOO_BIG, wire.ERR_INVALID, wire.ERR_UNSUP), hex(kind)
            except Closed:
                pass


def structured_reply_is_acknowledged_once_and_takes_no_data(path, export):
    with Client(path) as client:
        assert client.kind_of(wire.STRUCTURED_REPLY, b"x") == wire.ERR_INVALID
        assert client.kind_of(wire.STRUCTURED_REPLY) == wire.ACK
        assert client.kind_of(wire.STRUCTURED_REPLY) in (wire.ERR_INVALID, wire.ACK)


def extended_headers_are_acknowledged_and_replace_structured_replies(path, export):
    with Client(path) as client:
        assert client.kind_of(wire.EXTENDED_HEADERS, b"x") == wire.ERR_INVALID
        assert client.kind_of(wire.EXTENDED_HEADERS) == wire.ACK
        assert client.kind_of(wire.STRUCTURED_REPLY) == wire.ERR_EXT_HEADER_REQD
        client.extended = True
        client.go(export)
        assert len(client.read(0, 4096)) == 4096


def meta_contexts_need_structured_replies(path, export):
    with Client(path) as client:
        for option in (wire.LIST_META, wire.SET_META):
            assert client.kind_of(option, named(export, ["base:allocation"])) == wire.ERR_INVALID


def list_meta_context_finds_what_is_asked_for(path, export):
    with Client(path) as client:
        client.negotiate(structured=True)
        for queries, found in (([], True), (["base:"], True), (["base:allocation"], True), (["other:"], False),
                               (["base:allocation", "other:x"], True)):
            answers = client.ask(wire.LIST_META, named(export, queries))
            names = [data[4:].decode() for kind, data in answers if kind == wire.META_CONTEXT]
            assert answers[-1][0] == wire.ACK
            assert ("base:allocation" in names) == found, (queries, names)
        assert client.kind_of(wire.LIST_META, named("nothing-of-this-name", [])) == wire.ERR_UNKNOWN


def set_meta_context_selects_only_what_exists(path, export):
    with Client(path) as client:
        client.negotiate(structured=True)
        answers = client.ask(wire.SET_META, named(export, ["other:x"]))
        assert [kind for kind, _ in answers] == [wire.ACK], answers
        answers = client.ask(wire.SET_META, named(export, ["base:allocation", "other:x"]))
        assert [kind for kind, _ in answers] == [wire.META_CONTEXT, wire.ACK], answers


def meta_context_data_that_does_not_add_up_is_refused(path, export):
    with Client(path) as client:
        client.negotiate(structured=True)
        for data in (*SILENT, text(export), text(export) + struct.pack(">I", 0xFFFFFFFF),
                     text(export) + struct.pack(">II", 1, 0xFFFFFFFF), named(export, ["base:"])[:-1],
                     named(export, ["base:"]) + b"x"):
            for option in (wire.LIST_META, wire.SET_META):
                kind = client.kind_of(option, data)
                assert kind in (wire.ERR_INVALID, wire.ERR_TOO_BIG), (option, data, hex(kind))
        client.go(export, context="base:allocation")


def start_tls_without_tls_is_refused(path, export):
    with Client(path) as client:
        assert client.kind_of(wire.STARTTLS) in (wire.ERR_POLICY, wire.ERR_UNSUP)
        client.go(export)


def libnbd_negotiates_every_option(path, export):
    handle = nbd.NBD()
    handle.set_opt_mode(True)
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_unix(path)
    names = []
    handle.opt_list(lambda name, _description: names.append(name) or 0)
    assert export in names, names
    handle.set_export_name(export)
    handle.opt_info()
    size = handle.get_size()
    contexts = []
    handle.opt_list_meta_context(lambda name: contexts.append(name) or 0)
    assert contexts == ["base:allocation"], contexts
    handle.set_export_name("nothing-of-this-name")
    try:
        handle.opt_go()
        raise AssertionError("went to an export that does not exist")
    except nbd.Error:
        pass
    handle.set_export_name(export)
    handle.opt_go()
    assert handle.get_structured_replies_negotiated() and handle.get_size() == size
    assert handle.can_meta_context("base:allocation")
    handle.shutdown()


if __name__ == "__main__":
    wire.run_all(sys.modules[__name__], *sys.argv[1:])
