-- True if the table did not exist, also to one who asks again since no answer came.
local about, token = KEYS[1], ARGV[1]
return redis.call('HSETNX', about, 'exists', token) == 1 or redis.call('HGET', about, 'exists') == token
