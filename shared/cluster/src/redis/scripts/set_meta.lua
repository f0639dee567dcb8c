local metadata, empty, departure, cap = unpack(ARGV, 4)
if not exists() then return { 'no room' } end
local is = redis.call('HMGET', X, 'metadata', 'empty', 'departure', 'cap')
if is[1] == metadata and is[2] == empty and is[3] == departure and is[4] == cap then return { 'ok', seq() } end
redis.call('HSET', X, 'metadata', metadata, 'empty', empty, 'departure', departure, 'cap', cap)
return { 'ok', publish(bytes(5, info())) }
