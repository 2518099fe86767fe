# What docker, and an administrator, do; run by the test in a namespace.
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp --dport 80 -j MASQUERADE
iptables -t nat -A DOCKER -i docker0 -j RETURN
iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
iptables -t nat -A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443
iptables -t nat -A PREROUTING -i eth0 -p tcp -m multiport --dports 80,443,8000:8010 -m comment --comment "two words" -j REDIRECT --to-ports 3128
iptables -t nat -A PREROUTING -d 192.0.2.1/32 -p udp --dport 53 -m conntrack --ctstate NEW -j DNAT --to-destination 10.0.0.53
iptables -t nat -A PREROUTING -p tcp --dport 7000:7009 -j DNAT --to-destination 10.0.0.5:9000-9009
iptables -t nat -A PREROUTING -p tcp --dport 7100:7109 -j DNAT --to-destination 10.0.0.5:9000-9004
iptables -t nat -A PREROUTING -s 192.0.2.0/25 -p tcp --dport 2222 -j REDIRECT --to-ports 22
iptables -t nat -A PREROUTING ! -s 192.0.2.0/25 -p tcp --dport 2223 -j REDIRECT --to-ports 22
iptables -t nat -A PREROUTING -s 198.51.100.7 -j ACCEPT
iptables -t nat -A PREROUTING -p tcp --dport 2222 -s 192.0.2.0/25 -j REDIRECT --to-ports 23
iptables -t nat -A PREROUTING -d 203.0.113.1 -j DNAT --to-destination 10.0.0.1
iptables -t nat -A PREROUTING -p tcp --dport 25 -m mark --mark 7 -j DNAT --to-destination 10.0.0.25
iptables -t nat -A PREROUTING -p tcp --dport 26 -j DNAT --to-destination 10.0.0.25-10.0.0.27
iptables -t nat -A PREROUTING -i wlan+ -p tcp --dport 27 -j REDIRECT --to-ports 28
iptables -t nat -A PREROUTING -p sctp --dport 29 -j REDIRECT --to-ports 30
iptables -t nat -A OUTPUT -o lo -p tcp --dport 81 -j REDIRECT --to-ports 82
iptables -t nat -A OUTPUT -p tcp --dport 83 -j REDIRECT --to-ports 84
iptables -t nat -A POSTROUTING -d 10.0.0.5/32 -p tcp -j MASQUERADE
iptables -t nat -A POSTROUTING -d 10.0.0.53/32 -p udp --dport 53 -j SNAT --to-source 10.0.0.1
iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
iptables -t filter -A INPUT -p tcp --dport 80 -j ACCEPT
