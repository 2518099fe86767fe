/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses and prefixes: what is read, what is refused, and back to text. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "shared/addr.h"

static struct ip_prefix prefix(const char *text)
{
	struct ip_prefix p;

	assert_int_equal(ip_prefix_parse(text, &p), 0);
	return p;
}

static void test_parse_and_format(void **state)
{
	static const struct {
		const char *text, *prefix, *address;
		int family, length;
	} cases[] = {
		{"192.0.2.1", "192.0.2.1", "192.0.2.1", AF_INET, 32},
		{"192.0.2.1/32", "192.0.2.1", "192.0.2.1", AF_INET, 32},
		{"192.0.2.0/24", "192.0.2.0/24", "192.0.2.0", AF_INET, 24},
		{"0.0.0.0/0", "0.0.0.0/0", "0.0.0.0", AF_INET, 0},
		{"2001:DB8:0:0::1", "[2001:db8::1]", "2001:db8::1", AF_INET6, 128},
		{"[2001:db8::1]", "[2001:db8::1]", "2001:db8::1", AF_INET6, 128},
		{"[2001:db8::]/64", "[2001:db8::]/64", "2001:db8::", AF_INET6, 64},
		{"2001:db8::/64", "[2001:db8::]/64", "2001:db8::", AF_INET6, 64},
		{"::/0", "[::]/0", "::", AF_INET6, 0},
		{"1:2:3:4:5:6:7:8/127", "[1:2:3:4:5:6:7:8]/127", "1:2:3:4:5:6:7:8", AF_INET6, 127},
		{"ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/127",
		 "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]/127",
		 "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", AF_INET6, 127},
	};
	char buffer[IP_PREFIX_STRLEN];
	struct ip_prefix again;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ip_prefix p = prefix(cases[i].text);

		assert_int_equal(p.family, cases[i].family);
		assert_int_equal(p.length, cases[i].length);
		assert_string_equal(ip_address_format(&p, buffer), cases[i].address);
		assert_string_equal(ip_prefix_format(&p, buffer), cases[i].prefix);
		assert_int_equal(ip_prefix_parse(buffer, &again), 0);
		assert_true(ip_prefix_equal(&p, &again));
	}
}

static void test_parse_refuses(void **state)
{
	static const char *const cases[] = {
		"",
		"x",
		"1",
		"1.2.3",
		"1.2.3.4.5",
		"01.2.3.4",
		"1.2.3.256",
		" 1.2.3.4",
		"1.2.3.4 ",
		"1.2.3.4/",
		"1.2.3.4/33",
		"1.2.3.4/-1",
		"1.2.3.4/+1",
		"1.2.3.4/08",
		"1.2.3.4/1/2",
		"1.2.3.4/0x8",
		"[1.2.3.4]",
		"::/129",
		"::/4294967296",
		"[::",
		"::]",
		"[]",
		"[",
		"[::/64]",
		"[::]64",
		"fe80::1%eth0",
		"1::2::3",
		":::",
		"0000000000000000000000000000000000000000000000000000000000000000::",
	};
	struct ip_prefix p = prefix("192.0.2.7"), before = p;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(ip_prefix_parse(cases[i], &p), -EINVAL);
		assert_memory_equal(&p, &before, sizeof(p));
	}
}

static void test_host_bits(void **state)
{
	static const struct {
		const char *text, *corrected;
	} cases[] = {
		{"192.0.2.1/24", "192.0.2.0/24"}, {"255.255.255.255/1", "128.0.0.0/1"},
		{"10.0.0.1/0", "0.0.0.0/0"},	  {"[2001:db8::1]/64", "[2001:db8::]/64"},
		{"[::3]/127", "[::2]/127"},
	};
	char buffer[IP_PREFIX_STRLEN];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ip_prefix p = prefix(cases[i].text);

		assert_true(ip_prefix_has_host_bits(&p));
		ip_prefix_clear_host_bits(&p);
		assert_false(ip_prefix_has_host_bits(&p));
		assert_string_equal(ip_prefix_format(&p, buffer), cases[i].corrected);
	}
}

static void test_is_host(void **state)
{
	struct ip_prefix unset = {0}, p;

	assert_false(ip_prefix_is_host(&unset));
	p = prefix("192.0.2.1");
	assert_true(ip_prefix_is_host(&p));
	p = prefix("[::1]/32");
	assert_false(ip_prefix_is_host(&p));
	p = prefix("[::1]/128");
	assert_true(ip_prefix_is_host(&p));
}

static void test_contains(void **state)
{
	static const struct {
		const char *outer, *inner;
		bool contains;
	} cases[] = {
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "10.0.0.0/8", true},
		{"10.0.0.0/8", "10.0.0.0/7", false},
		{"10.0.0.0/8", "11.0.0.0", false},
		{"10.0.0.0/9", "10.128.0.0", false},
		{"0.0.0.0/0", "255.1.2.3", true},
		{"::/0", "10.0.0.0", false},
		{"0.0.0.0/0", "::", false},
		{"[2001:db8::]/33", "2001:db8:7fff::1", true},
		{"[2001:db8::]/33", "2001:db8:8000::1", false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ip_prefix outer = prefix(cases[i].outer), inner = prefix(cases[i].inner);

		assert_int_equal(ip_prefix_contains(&outer, &inner), cases[i].contains);
	}
}

static void test_mapped(void **state)
{
	static const uint8_t expected[16] = {[10] = 0xff, 0xff, 192, 0, 2, 1};
	struct ip_prefix p = prefix("192.0.2.1"), q;
	uint8_t mapped[16];

	ip_prefix_to_mapped(&p, mapped);
	assert_memory_equal(mapped, expected, 16);
	ip_prefix_from_mapped(mapped, &q);
	assert_true(ip_prefix_equal(&p, &q));
	assert_false(ip_prefix_is_mapped(&p));

	p = prefix("2001:db8::1");
	ip_prefix_to_mapped(&p, mapped);
	ip_prefix_from_mapped(mapped, &q);
	assert_true(ip_prefix_equal(&p, &q));
	assert_false(ip_prefix_is_mapped(&p));

	p = prefix("::ffff:192.0.2.1");
	assert_true(ip_prefix_is_mapped(&p));
	p = prefix("::ffff:0:0/96");
	assert_true(ip_prefix_is_mapped(&p));
	p = prefix("::/0");
	assert_false(ip_prefix_is_mapped(&p));
}

/* Addresses of every pattern of zeros, and many by chance, are written as inet_ntop(3) does it. */
static void test_as_the_library(void **state)
{
	static const uint8_t ends[] = {0, 1, 9, 0x0a, 0x10, 0x99, 0xff};
	char expected[INET6_ADDRSTRLEN], buffer[IP_PREFIX_STRLEN];
	uint64_t random = 1;

	for (unsigned i = 0; i < 400000; i++) {
		struct ip_prefix p = {.family = i % 2 ? AF_INET6 : AF_INET};
		unsigned size = i % 2 ? 16 : 4;

		for (unsigned b = 0; b < size; b++) {
			random = random * 6364136223846793005ULL + 1442695040888963407ULL;
			/* Of IPv6, which groups are not zero is told by the low bits. */
			if (size == 4 || i >> 1 & 1U << b / 2)
				p.bytes[b] = random >> 60 ? (uint8_t)(random >> 40)
							  : ends[(random >> 32) % sizeof(ends)];
		}
		p.length = (uint8_t)(8 * size);
		assert_non_null(inet_ntop(p.family, p.bytes, expected, sizeof(expected)));
		assert_string_equal(ip_address_format(&p, buffer), expected);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_format), cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_host_bits),	 cmocka_unit_test(test_is_host),
		cmocka_unit_test(test_contains),	 cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_as_the_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
