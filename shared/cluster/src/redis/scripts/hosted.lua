-- Whether a node hosts somebody in this room. If not, it is not looked for here any more.
local node = ARGV[4]
if exists() then
  for _, identity in ipairs(redis.call('HKEYS', I)) do
    if identity ~= '' and seat(identity).node == node then return { 'ok', 1 } end
  end
end
redis.call('SREM', HOSTS .. node, NAME)
return { 'ok', 0 }
