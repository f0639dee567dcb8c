local LEASES, INFOS = unpack(KEYS)
redis.call('ZREM', LEASES, ARGV[1])
redis.call('HDEL', INFOS, ARGV[1])
return { 'ok' }
