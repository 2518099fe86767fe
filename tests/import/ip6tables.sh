# Run by the test in a namespace.
ip6tables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination [2001:db8::5]:8080
ip6tables -t nat -A PREROUTING -d 2001:db8::1 -p udp --dport 5300 -j REDIRECT --to-ports 53
ip6tables -t nat -A PREROUTING -p tcp --dport 81 -j DNAT --to-destination 2001:db8::6
