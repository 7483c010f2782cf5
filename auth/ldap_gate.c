/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auth/ldap_gate.c - what a message of a directory must look like before libldap sees it.
 *
 * libldap 2.5 aborts the process on an empty responseName and on a paged-results control without a
 * value, never frees the text of a message with id 0 nor the request whose answer it cannot decode,
 * and takes an empty number for "success". So only messages of the shapes below, with the tags of
 * RFC 4511, pass. Lengths may be written long: Active Directory does.
 */
#include "auth/ldap_internal.h"

struct reader {
    const uint8_t *p;
    size_t n;
};

size_t dir_gate_need(const uint8_t *p, size_t n, bool *wrong)
{
    size_t more, length = 0;

    *wrong = n > 0 && p[0] != 0x30;
    if (n < 2) {
        return 2;
    }
    if (p[1] < 0x80) {
        return 2 + p[1];
    }
    more = p[1] & 0x7f;
    if (more == 0 || more > 4) { /* no indefinite form in LDAP (RFC 4511 5.1) */
        *wrong = true;
        return 2;
    }
    if (n < 2 + more) {
        return 2 + more;
    }
    for (size_t i = 0; i < more; i++) {
        length = length << 8 | p[2 + i];
    }
    return 2 + more + length;
}

static bool next_is(const struct reader *r, uint8_t tag)
{
    return r->n > 0 && r->p[0] == tag;
}

/* The element at the front, which must have this tag, into in; r goes behind it. */
static bool take(struct reader *r, uint8_t tag, struct reader *in)
{
    size_t head = 2, length;

    if (r->n < 2 || r->p[0] != tag) {
        return false;
    }
    length = r->p[1];
    if (length >= 0x80) {
        size_t more = length & 0x7f;
        if (more == 0 || more > 4 || r->n < 2 + more) {
            return false;
        }
        for (length = 0; head < 2 + more; head++) {
            length = length << 8 | r->p[head];
        }
    }
    if (length > r->n - head) {
        return false;
    }
    *in = (struct reader){r->p + head, length};
    r->p += head + length;
    r->n -= head + length;
    return true;
}

/* 1 to 4 bytes, not negative */
static bool take_number(struct reader *r, uint8_t tag, int *out)
{
    struct reader in;
    unsigned v = 0;

    if (!take(r, tag, &in) || in.n == 0 || in.n > 4 || in.p[0] >= 0x80) {
        return false;
    }
    for (size_t i = 0; i < in.n; i++) {
        v = v << 8 | in.p[i];
    }
    *out = (int)v;
    return true;
}

/* Elements of one kind to the end; at least min of them. */
static bool take_all(struct reader r, uint8_t tag, size_t min, bool (*inside)(struct reader))
{
    struct reader in;
    size_t n = 0;

    for (; r.n > 0; n++) {
        if (!take(&r, tag, &in) || (inside != NULL && !inside(in))) {
            return false;
        }
    }
    return n >= min;
}

/* LDAPResult: code, matchedDN, text, referral. What follows stays in r. */
static bool take_result(struct reader *r, int *code)
{
    struct reader in;

    if (!take_number(r, 0x0a, code) || !take(r, 0x04, &in) || !take(r, 0x04, &in)) {
        return false;
    }
    return !next_is(r, 0xa3) || (take(r, 0xa3, &in) && take_all(in, 0x04, 1, NULL));
}

static bool is_attribute(struct reader r)
{
    struct reader in;

    return take(&r, 0x04, &in) && in.n > 0 && take(&r, 0x31, &in) && r.n == 0 &&
           take_all(in, 0x04, 0, NULL);
}

static bool is_entry(struct reader r)
{
    struct reader in;

    return take(&r, 0x04, &in) && take(&r, 0x30, &in) && r.n == 0 &&
           take_all(in, 0x30, 0, is_attribute);
}

static bool is_bind(struct reader r, int *code)
{
    struct reader in;

    return take_result(&r, code) && (!next_is(&r, 0x87) || take(&r, 0x87, &in)) && r.n == 0;
}

static bool is_extended(struct reader r, int *code, struct gw_str *oid)
{
    struct reader in;

    if (!take_result(&r, code)) {
        return false;
    }
    if (next_is(&r, 0x8a)) {
        if (!take(&r, 0x8a, &in) || in.n == 0) {
            return false;
        }
        *oid = (struct gw_str){(const char *)in.p, in.n};
    }
    return (!next_is(&r, 0x8b) || take(&r, 0x8b, &in)) && r.n == 0;
}

static bool is_control(struct reader r)
{
    struct reader in;

    if (!take(&r, 0x04, &in) || in.n == 0 ||
        (next_is(&r, 0x01) && (!take(&r, 0x01, &in) || in.n != 1))) {
        return false;
    }
    return (!next_is(&r, 0x04) || take(&r, 0x04, &in)) && r.n == 0;
}

bool dir_gate_open(struct gw_str pdu, struct dir_message *out)
{
    struct dir_message m = {.oid = GW_STR("")};
    struct reader r = {(const uint8_t *)pdu.p, pdu.n}, in, op;
    bool ok;

    if (!take(&r, 0x30, &in) || r.n > 0 || !take_number(&in, 0x02, &m.id) || in.n == 0) {
        return false;
    }
    m.op = in.p[0];
    if (!take(&in, m.op, &op)) {
        return false;
    }
    switch (m.op) {
    case DIR_OP_BIND:
        ok = is_bind(op, &m.code);
        break;
    case DIR_OP_ENTRY:
        ok = is_entry(op);
        break;
    case DIR_OP_DONE:
        ok = take_result(&op, &m.code) && op.n == 0;
        break;
    case DIR_OP_REFERENCE:
        ok = take_all(op, 0x04, 1, NULL);
        break;
    case DIR_OP_EXTENDED:
        ok = is_extended(op, &m.code, &m.oid);
        break;
    default: /* nothing else was asked for, intermediate responses (0x79) neither */
        return false;
    }
    if (ok && next_is(&in, 0xa0)) {
        ok = take(&in, 0xa0, &op) && take_all(op, 0x30, 0, is_control);
    }
    if (!ok || in.n > 0) {
        return false;
    }
    *out = m;
    return true;
}
