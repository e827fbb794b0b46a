# nginx reads no /etc/resolv.conf: the address of the DNS server and the domain of this namespace are written into its
# configuration, which then stands where nginx may write.
set -eu
nameserver=$(sed -n 's/^nameserver //p' /etc/resolv.conf | head -n 1)
namespace=$(sed -n 's/^search \([^ ]*\).*/\1/p' /etc/resolv.conf)
case $nameserver in *:*) nameserver="[$nameserver]" ;; esac
cp /etc/gateway/*.conf /tmp
sed -i "s/NAMESERVER/$nameserver/; s/NAMESPACE/$namespace/" /tmp/upstreams.conf
exec nginx -p /tmp -c /tmp/nginx.conf -e stderr
